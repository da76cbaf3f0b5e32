"""The questions of people to a large store: time and CPU time at the SQL endpoint, and memory of the answering process.

    python -m benchmarks.queries [--entries N] [--times N] [--folder FOLDER] [--compare FILE]

Builds a store of that many entries from simulated lives, or takes the one that an earlier run has left in ``--folder``.
Then an analyst asks each question several times, over one connection, and commands ask some of them. Prints a table and
writes build/bench-queries.json. ``--compare`` takes such a file of an earlier run, for columns with its figures.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from grantledger.console.address import EndpointAddress, EndpointCredential
from grantledger.processors.watch_policy import load_policy
from grantledger.runtime.settings import load_settings
from grantledger.runtime.sql_endpoint import temporary_endpoint
from grantledger.simulator.company_policy import POLICY
from grantledger.sinks.clickhouse import StoreAddress, connect, lock_store, stop_merges

from . import commands
from .memory import LargestMemory
from .results import save
from .simulated_store import BUILT, build

QUESTIONS = {
    "active_grants, newest 20": "SELECT * FROM active_grants ORDER BY activated_at DESC LIMIT 20",
    "grants by state": "SELECT state, count() FROM grants GROUP BY state",
    "grants, one": "SELECT * FROM grants WHERE grant_id = '{grant}'",
    "past_deadline_grants": "SELECT * FROM past_deadline_grants LIMIT 100",
    "overdue_grants": "SELECT * FROM overdue_grants LIMIT 100",
    "access_review, 30 days": (
        "SELECT count(), max(activated_at) FROM access_review WHERE activated_at > now() - INTERVAL 30 DAY"
    ),
    "access_review, one": "SELECT * FROM access_review WHERE grant_id = '{grant}'",
    "access_review, a person": (
        "SELECT * FROM access_review WHERE person = '{person}' ORDER BY activated_at DESC LIMIT 100"
    ),
    "grant_timeline, one": (
        "SELECT * FROM grant_timeline WHERE grant_id = '{grant}' ORDER BY append_time, origin, `index`"
    ),
    "removal_latency": "SELECT * FROM removal_latency",
    "source_health": "SELECT * FROM source_health",
    "text in commands": (
        "SELECT count() FROM events WHERE event_type IN ('session.command', 'session.query') AND "
        "positionCaseInsensitiveUTF8(concat(command, ' ', arrayStringConcat(args, ' '), ' ', query), 'pg_stat') > 0"
    ),
    "text in raw": "SELECT count() FROM events WHERE positionCaseInsensitive(raw, 'pg_stat') > 0",
}
"""By name: the statement, in which {grant} and {person} stand for one of the store."""
REACH = {
    "active_grants, newest 20": 100,
    "grants by state": 300,
    "grants, one": 50,
    "past_deadline_grants": 300,
    "overdue_grants": 300,
    "access_review, 30 days": 1000,
    "access_review, one": 50,
    "grant_timeline, one": 50,
    "removal_latency": 200,
    "text in commands": 200,
    "text in raw": 1000,
}
"""Milliseconds within which a question must be answered over ten million entries."""
REACH_MIB = 1024
"""Anonymous memory of the answering process."""
ANY_GRANT = (
    "SELECT grant_id, subject_id FROM grants WHERE removed_at IS NOT NULL ORDER BY activated_at LIMIT 1 OFFSET 50"
)


def built_store(folder: Path, entries: int, console: Console) -> dict[str, Any]:
    """Build a store, unless an earlier run left it in the folder; return what it has, and what its build took."""
    built = folder / BUILT
    if not built.exists():
        if (folder / "clickhouse").exists():
            raise SystemExit(f"{folder}: the build of this store was interrupted. Remove the folder")
        # A process of its own, so that its memory is not measured.
        command = [sys.executable, "-m", "benchmarks.queries", "--build"]
        subprocess.run([*command, "--folder", str(folder), "--entries", str(entries)], check=True)
    result: dict[str, Any] = json.loads(built.read_text())
    console.print(", ".join(f"{name} {value:,.0f}" for name, value in result.items()))
    return result


class Analyst:
    """Asks over one connection."""

    def __init__(self, address: EndpointAddress, user: EndpointCredential) -> None:
        self._connection = HTTPConnection(address.host, address.port, timeout=600)
        basic = base64.b64encode(f"{user.user}:{user.password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}"}

    def ask(self, statement: str) -> tuple[list[str], float]:
        """Return the lines of the answer, and how many milliseconds it took."""
        began = time.perf_counter()
        self._connection.request("POST", "/?max_execution_time=300", statement, self._headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        took = 1e3 * (time.perf_counter() - began)
        if answer.status != 200:
            raise SystemExit(f"{statement}\n{text}")
        return text.splitlines(), took


def ask_all(address: EndpointAddress, times: int, console: Console) -> dict[str, Any]:
    """Ask every question and return the figures. The endpoint is in this process."""
    analyst = Analyst(address, address.analyst)
    [entries], _ = analyst.ask("SELECT count() FROM events")
    [line], _ = analyst.ask(ANY_GRANT)
    grant, person = line.split("\t")
    queries = {}
    for name, text in QUESTIONS.items():
        before = time.process_time()
        with console.status(name), LargestMemory() as memory:
            statement = text.format(grant=grant, person=person)
            asked = [analyst.ask(statement) for _ in range(times)]
        took = sorted(one for _, one in asked)
        queries[name] = {
            "rows": len(asked[0][0]),
            "p50_ms": statistics.median(took),
            "p95_ms": took[min(len(took) - 1, int(0.95 * len(took)))],
            "cpu_ms": 1e3 * (time.process_time() - before) / times,
            "anonymous_mib": memory.mib,
        }
    largest = max(one["anonymous_mib"] for one in queries.values())
    return {"entries": int(entries), "grant": grant, "queries": queries, "anonymous_mib": largest}


def measure(folder: Path, times: int, console: Console) -> dict[str, Any]:
    """Return the figures of questions and commands over a built store."""
    with console.status("commands while nothing runs"):
        stopped = commands.measured(commands.STOPPED, folder)
    settings = load_settings(folder, None)
    # The process of a store has the engine open, too: otherwise each statement would start it.
    with (
        lock_store(settings.store_path),
        connect(StoreAddress(settings.store_path)) as owner,
        temporary_endpoint(settings) as address,
    ):
        stop_merges(owner)
        result = ask_all(address, times, console)
        with console.status("commands"):
            running = commands.measured(commands.RUNNING, folder, result["grant"])
    return result | {"commands": stopped | running}


def report(result: dict[str, Any], console: Console, before: dict[str, Any] | None = None) -> None:
    """Print the tables, with the medians of an earlier run where there is one."""
    earlier = before["queries"] if before else {}
    title = f"{result['entries']:,} events" + (f"; before: {before['entries']:,}" if before else "")
    table = Table("question", "rows", title=title)
    for heading in [*(["before ms"] if before else []), "p50 ms", "p95 ms", "CPU ms", "MiB", "reach at 10 M, ms"]:
        table.add_column(heading, justify="right")
    for question, one in result["queries"].items():
        figures = [one[name] for name in ("p50_ms", "p95_ms", "cpu_ms", "anonymous_mib")]
        former = [f"{earlier[question]['p50_ms']:,.0f}" if question in earlier else ""] if before else []
        reach = f"< {REACH[question]:,}" if question in REACH else ""
        table.add_row(question, str(one["rows"]), *former, *(f"{figure:,.0f}" for figure in figures), reach)
    console.print(table)
    former = f", before {before['anonymous_mib']:,.0f} MiB" if before and "anonymous_mib" in before else ""
    console.print(
        f"largest anonymous memory of the answering process: {result['anonymous_mib']:,.0f} MiB{former} "
        f"(reach < {REACH_MIB:,} MiB)"
    )
    report_commands(result["commands"], console, (before or {}).get("commands", {}))


def report_commands(figures: dict[str, Any], console: Console, earlier: dict[str, Any]) -> None:
    """Print the table of commands."""
    table = Table("command", *(["before, CPU s"] if earlier else []), "CPU s", "wall s", "reach, CPU s")
    for name, one in figures.items():
        former = [f"{earlier[name]['cpu_s']:.2f}" if name in earlier else ""] if earlier else []
        reach = f"< {commands.REACH[name]}" if name in commands.REACH else ""
        table.add_row(name, *former, f"{one['cpu_s']:.2f}", f"{one['wall_s']:.2f}", reach)
    console.print(table)


def main() -> None:
    """Build, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the store; default: a temporary folder")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="the build/bench-queries.json of an earlier run")
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    console = Console(highlight=False, width=120)
    if options.build:
        options.folder.mkdir(parents=True, exist_ok=True)
        policy = options.folder / "policy.toml"
        policy.write_text(POLICY)
        build(options.folder, options.entries, load_policy(policy), console)
        return
    before = json.loads(options.compare.read_text()) if options.compare else None
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        built = built_store(folder, options.entries, console)
        result = measure(folder, options.times, console) | {"build": built}
    report(result, console, before)
    save(result, "bench-queries.json", console)


if __name__ == "__main__":
    main()
