"""Verify the store of a pipeline run: ``python -m benchmarks.verify FOLDER``; prints entries per second."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grantledger.ledger.key_list import read_key_list
from grantledger.sinks.clickhouse import StoreAddress, connect, stop_merges
from grantledger.verifier.clickhouse_source import ClickHouseEvidence
from grantledger.verifier.procedure import verify


def main() -> None:
    """Verify with one process per processor."""
    folder = Path(sys.argv[1])
    keys = read_key_list((folder / "keys" / "log.pub").read_bytes())
    with connect(StoreAddress(folder / "clickhouse")) as client:
        stop_merges(client)
        origin = client.query("SELECT any(origin) FROM origins").result_rows[0][0]
        result = verify(ClickHouseEvidence(client, origin.split("/")[0]), keys)
    if not result.sound:
        raise RuntimeError(str(result.problems))
    print(json.dumps(result.entries / result.seconds))


if __name__ == "__main__":
    main()
