"""``make bench``: copy, pipeline, sealing alone, verification; medians of three, copy and pipeline alternating.

Then the questions of people over a store of simulated lives with as many entries (:mod:`.queries`). Prints tables and
writes build/bench.json. Options: ``--events N``, ``--repeat N``, ``--no-memory``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from grantledger.runtime.broker import LocalBroker

from . import commands, load, pipeline
from .results import save

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run all benchmarks and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="skip the run over three times the events")
    options = parser.parse_args()
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        result = measure(options, Path(scratch), console)
    report(result, console)
    result["cli_help_cpu_s"] = commands.help_cpu_s()
    asked = run_queries(options.events)
    result |= {"queries": asked["queries"], "commands": asked["commands"], "query_store": asked["build"]}
    save(result, "bench.json", console)


def measure(options: argparse.Namespace, scratch: Path, console: Console) -> dict:
    """Fill a broker once, and measure every variant with it."""
    events = options.events
    copies, pipelines, seals, verifies, shares, seal_walls, anonymous = [], [], [], [], [], [], []
    with LocalBroker(scratch / "kafka") as broker:
        servers, pid = broker.bootstrap_servers, broker.pid or 0
        pipeline.fresh_topics(servers)
        size = load.fill(servers, events)
        console.print(f"{events:,} events of {size:.0f} bytes are in Kafka")
        for turn in range(options.repeat):
            console.print(f"turn {turn + 1} of {options.repeat}: copy", end=" ")
            copied = run_copy(servers, scratch / f"copy{turn}", events)
            copies.append(copied["events"] / copied["seconds"])
            shutil.rmtree(scratch / f"copy{turn}", ignore_errors=True)
            console.print(f"{copies[-1]:,.0f}/s, pipeline", end=" ")
            folder = scratch / f"pipeline{turn}"
            measured = pipeline.run(servers, folder, f"bench{turn}.local", events, pid, store=True)
            pipelines.append(measured.events / measured.seconds)
            shares.append(measured.cpu["broker"] / sum(measured.cpu.values()))
            memory = measured.memory
            anonymous.append(measured.anonymous)
            cpu = measured.cpu
            console.print(f"{pipelines[-1]:,.0f}/s, verify", end=" ")
            verifies.append(float(run("benchmarks.verify", str(folder))))
            console.print(f"{verifies[-1]:,.0f}/s, seal", end=" ")
            if turn == options.repeat - 1:
                bytes_per_entry = float(run("benchmarks.stored_bytes", str(folder)))
            shutil.rmtree(folder, ignore_errors=True)
            folder = scratch / f"seal{turn}"
            alone = pipeline.run(servers, folder, f"seal{turn}.local", events, pid, store=False)
            shutil.rmtree(folder, ignore_errors=True)
            seals.append(alone.events / alone.cpu["seal"])
            seal_walls.append(alone.events / alone.seconds)
            console.print(f"{seals[-1]:,.0f}/s per core")
        larger = None
        if not options.no_memory:
            console.print(f"memory over {3 * events:,} events", end=" ")
            load.fill(servers, 2 * events)
            folder = scratch / "memory"
            measured = pipeline.run(servers, folder, "memory.local", 3 * events, pid, store=True)
            larger = measured.memory
            anonymous.append(measured.anonymous)
            console.print("done")
    return {
        "copy": round(statistics.median(copies)),
        "pipeline": round(statistics.median(pipelines)),
        "seal_per_core": round(statistics.median(seals)),
        "verify": round(statistics.median(verifies)),
        "store_rss_anon_mib": round(max(one["store"] for one in anonymous)),
        "bytes_per_entry": round(bytes_per_entry),
        "ratio": round(statistics.median(p / c for p, c in zip(pipelines, copies, strict=True)), 3),
        "seal_wall": round(statistics.median(seal_walls)),
        "broker_share_of_cpu": round(statistics.median(shares), 3),
        "cpu_seconds_copy": round(copied["cpu_seconds"], 1),
        "cpu_seconds_last_run": {name: round(value, 1) for name, value in cpu.items()},
        "memory_mib": {name: round(value) for name, value in memory.items()},
        "memory_mib_three_times": {name: round(value) for name, value in (larger or {}).items()},
        "events": events,
        "event_bytes": round(size),
        "repeat": options.repeat,
        "machine": {"processors": os.cpu_count(), "cpu": cpu_name(), "python": platform.python_version()},
    }


def run_copy(servers: str, folder: Path, events: int) -> dict:
    """Run the baseline in its own process, and return its measurement."""
    return json.loads(run("benchmarks.copy", servers, str(folder), str(events)))


def run_queries(entries: int) -> dict:
    """Ask the questions of people in a process of its own, which prints its tables, and return its figures."""
    command = [sys.executable, "-m", "benchmarks.queries", "--entries", str(entries), "--times", "5"]
    subprocess.run(command, cwd=ROOT, check=True)
    return json.loads((ROOT / "build" / "bench-queries.json").read_text())


def run(module: str, *arguments: str) -> str:
    """Run a measurement in its own process; return the last line that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr[-2000:])
    return answer.stdout.splitlines()[-1]


def report(result: dict, console: Console) -> None:
    """Print the table."""
    table = Table("what", "events/s", "beside the copy")
    table.add_row("plain copy Kafka to ClickHouse, no sealing", f"{result['copy']:,}", "1.00")
    table.add_row("full pipeline: seal, sign, store", f"{result['pipeline']:,}", f"{result['ratio']:.2f}")
    table.add_row("sealing alone, per CPU second", f"{result['seal_per_core']:,}", "")
    table.add_row("sealing alone, wall time", f"{result['seal_wall']:,}", "")
    table.add_row("verify", f"{result['verify']:,}", "")
    console.print(table)
    console.print(
        f"{result['events']:,} events of {result['event_bytes']} bytes, medians of {result['repeat']}; "
        f"broker's share of CPU {result['broker_share_of_cpu']:.0%}; "
        f"CPU seconds of the last copy {result['cpu_seconds_copy']}, "
        f"of the last pipeline run {result['cpu_seconds_last_run']}; memory MiB {result['memory_mib']}, "
        f"with three times the events {result['memory_mib_three_times']}; "
        f"store's anonymous memory {result['store_rss_anon_mib']} MiB; {result['bytes_per_entry']} bytes per entry; "
        f"{result['machine']['processors']} processors, {result['machine']['cpu']}, "
        f"Python {result['machine']['python']}"
    )


def cpu_name() -> str:
    """Return the processor's name if the system provides it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
