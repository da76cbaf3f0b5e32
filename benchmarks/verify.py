"""Verify what a pipeline run has stored: ``python -m benchmarks.verify FOLDER``; prints entries a second."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grantledger.ledger.keys import read_public_pem
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.verifier.store import verify_store


def main() -> None:
    """Verify with as many processes as there are processors."""
    folder = Path(sys.argv[1])
    key = read_public_pem((folder / "keys" / "log.pub").read_bytes())
    with connect(StoreAddress(folder / "clickhouse")) as client:
        origin = client.query("SELECT any(origin) FROM origins").result_rows[0][0]
        result = verify_store(client, origin.split("/")[0], key)
    if not result.sound:
        raise RuntimeError(str(result.problems))
    print(json.dumps(result.entries / result.seconds))


if __name__ == "__main__":
    main()
