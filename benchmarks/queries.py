"""The questions of people to a large store: time and CPU time at the SQL endpoint, and memory of the answering process.

    python -m benchmarks.queries [--entries N] [--times N] [--folder FOLDER]

Builds a store of that many entries from simulated lives, or takes the one that an earlier run has left in ``--folder``.
Then an analyst asks each question several times, over one connection. Prints a table and writes
build/bench-queries.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from grantledger.console.address import EndpointAddress, EndpointCredential
from grantledger.console.endpoint import SqlEndpoint
from grantledger.console.query_spool import QuerySpool
from grantledger.processors.watch_policy import load_policy
from grantledger.simulator.company_policy import POLICY

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
}
"""By name: the statement, in which {grant} and {person} stand for one of the store."""
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


def anonymous_mib() -> float:
    """Return the anonymous memory of this process, in MiB."""
    [kib] = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kib) / 1024


def measure(folder: Path, times: int, console: Console) -> dict[str, Any]:
    """Ask every question and return the figures."""
    with closing(QuerySpool(folder / "spool", 1_000_000, 1 << 30)) as spool:
        endpoint = SqlEndpoint(folder / "clickhouse", spool)
        try:
            analyst = Analyst(endpoint.address, endpoint.address.analyst)
            [entries], _ = analyst.ask("SELECT count() FROM events")
            [line], _ = analyst.ask(ANY_GRANT)
            grant, person = line.split("\t")
            result: dict[str, Any] = {"entries": int(entries), "queries": {}}
            for name, text in QUESTIONS.items():
                before = time.process_time()
                with console.status(name):
                    statement = text.format(grant=grant, person=person)
                    asked = [analyst.ask(statement) for _ in range(times)]
                took = sorted(one for _, one in asked)
                result["queries"][name] = {
                    "rows": len(asked[0][0]),
                    "p50_ms": statistics.median(took),
                    "p95_ms": took[min(len(took) - 1, int(0.95 * len(took)))],
                    "cpu_ms": 1e3 * (time.process_time() - before) / times,
                    "anonymous_mib": anonymous_mib(),
                }
        finally:
            endpoint.stop()
    return result


def report(result: dict[str, Any], console: Console) -> None:
    """Print a table."""
    table = Table("question", "rows", "p50 ms", "p95 ms", "CPU ms", "MiB", title=f"{result['entries']:,} events")
    for question, one in result["queries"].items():
        figures = (one[name] for name in ("p50_ms", "p95_ms", "cpu_ms", "anonymous_mib"))
        table.add_row(question, str(one["rows"]), *(f"{figure:,.0f}" for figure in figures))
    console.print(table)


def main() -> None:
    """Build, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the store; default: a temporary folder")
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    console = Console(highlight=False, width=120)
    if options.build:
        policy = options.folder / "policy.toml"
        policy.write_text(POLICY)
        build(options.folder, options.entries, load_policy(policy), console)
        return
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        built = built_store(folder, options.entries, console)
        result = measure(folder, options.times, console) | {"build": built}
    report(result, console)
    save(result, "bench-queries.json", console)


if __name__ == "__main__":
    main()
