"""The time that the query log adds to a statement: ``python -m benchmarks.recorded_statements``.

Two users of one endpoint send the same statement in turn, each over one connection: the statements of one are recorded
on the spool, the statements of the other are not. Prints milliseconds and writes build/recorded-statements.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar

import clickhouse_connect
from rich.console import Console

from grantledger.console.address import EndpointAddress, EndpointCredential
from grantledger.console.endpoint import SqlEndpoint
from grantledger.console.person_statement import Completion, PersonStatement
from grantledger.console.query_spool import QuerySpool
from grantledger.console.roles import ANALYST, AUDITOR, READER

ROOT = Path(__file__).resolve().parents[1]
Result = TypeVar("Result")
STATEMENT = "SELECT count() FROM events WHERE id % 7 = 3"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--statements", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="grantledger-queries-") as folder:
        result = measure(Path(folder), options.statements)
    target = ROOT / "build" / "recorded-statements.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    console = Console(highlight=False)
    for name, (median, high) in result.items():
        console.print(f"{name:<24} median {median:6.2f} ms   99 % below {high:6.2f} ms")


def measure(folder: Path, statements: int) -> dict[str, tuple[float, float]]:
    """Return median and 99th percentile in milliseconds: of the spool alone, and of both users."""
    client = clickhouse_connect.get_client(interface="chdb", path=str(folder / "store"))
    client.command("CREATE DATABASE audit ENGINE=Atomic")
    client.command("CREATE TABLE audit.entries (id UInt64) ENGINE=MergeTree ORDER BY id")
    client.command("INSERT INTO audit.entries SELECT number FROM numbers(100000)")
    client.command("CREATE VIEW audit.events AS SELECT * FROM audit.entries")
    with closing(QuerySpool(folder / "spool", 1_000_000, 1 << 30)) as spool:
        times: dict[str, list[float]] = {"beginning on the spool": []}
        for _ in range(statements):
            statement = PersonStatement(datetime.now(UTC), "analyst", STATEMENT)
            took, number = timed(lambda statement=statement: spool.begin(statement))
            times["beginning on the spool"].append(took)
            spool.complete(number, Completion("success", 1, 1))
        unrecorded = replace(ANALYST, user=AUDITOR.user, logged=False)
        endpoint = SqlEndpoint(folder / "store", spool, roles=(ANALYST, unrecorded, READER))
        try:
            times |= ask_in_turn(endpoint.address, statements)
        finally:
            endpoint.stop()
    client.close()
    return {name: (statistics.median(found), statistics.quantiles(found, n=100)[98]) for name, found in times.items()}


def ask_in_turn(address: EndpointAddress, statements: int) -> dict[str, list[float]]:
    """Return the times of both users."""
    users = {"statement, recorded": address.analyst, "statement, not recorded": address.auditor}
    connections = {name: HTTPConnection(address.host, address.port) for name in users}
    times: dict[str, list[float]] = {name: [] for name in users}
    for _ in range(statements + 10):
        for name, user in users.items():
            took, answer = timed(lambda name=name, user=user: ask(connections[name], user))
            assert answer == b"14286\n", answer
            times[name].append(took)
    return {name: found[10:] for name, found in times.items()}


def ask(connection: HTTPConnection, user: EndpointCredential) -> bytes:
    """Return the answer to the statement."""
    basic = base64.b64encode(f"{user.user}:{user.password}".encode()).decode()
    connection.request("POST", "/", STATEMENT, {"Authorization": f"Basic {basic}"})
    return connection.getresponse().read()


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the milliseconds that a call took, and its result."""
    started = time.perf_counter()
    result = call()
    return (time.perf_counter() - started) * 1000, result


if __name__ == "__main__":
    main()
