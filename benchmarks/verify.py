"""Verify the store of a pipeline run: ``python -m benchmarks.verify FOLDER``.

Prints CPU µs per entry, that of the definitions apart, and the largest resident set; on the last line only entries per
second.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from grantledger.ledger.key_list import read_key_list
from grantledger.sinks.clickhouse import StoreAddress, connect, stop_merges
from grantledger.verifier.clickhouse_source import ClickHouseEvidence
from grantledger.verifier.procedure import verify


def cpu_seconds(who: int) -> float:
    """Return user and system time of this process, or of its children."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Verify with one thread per processor."""
    folder = Path(sys.argv[1])
    keys = read_key_list((folder / "keys" / "log.pub").read_bytes())
    with connect(StoreAddress(folder / "clickhouse")) as client:
        stop_merges(client)
        origin = client.query("SELECT any(origin) FROM origins").result_rows[0][0]
        before = cpu_seconds(resource.RUSAGE_SELF)
        result = verify(ClickHouseEvidence(client, origin.split("/")[0]), keys)
        own, children = cpu_seconds(resource.RUSAGE_SELF) - before, cpu_seconds(resource.RUSAGE_CHILDREN)
    if not result.sound:
        raise RuntimeError(str(result.problems))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{result.entries:,} entries: {1e6 * own / result.entries:.2f} µs of CPU per entry; "
        f"definitions {children:.1f} s; starting {before:.1f} s; {mib:,.0f} MiB"
    )
    print(json.dumps(result.entries / result.seconds))


if __name__ == "__main__":
    main()
