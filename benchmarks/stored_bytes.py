"""Bytes per entry on disk, once merges have ended: ``python -m benchmarks.stored_bytes FOLDER``; prints one number."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from grantledger.sinks.clickhouse import StoreAddress, connect

PARTS = """
SELECT sum(bytes_on_disk) / sum(rows), groupArray(name) FROM system.parts
WHERE database = currentDatabase() AND table = 'entries' AND active
"""
MERGES = "SELECT count() FROM system.merges"
SETTLED_SECONDS = 3.0
MOST_SECONDS = 60.0


def main() -> None:
    """Open the store of a pipeline run, and wait until nothing has been merged for some seconds."""
    with connect(StoreAddress(Path(sys.argv[1]) / "clickhouse")) as client:
        started = settled = time.monotonic()
        last = None
        while time.monotonic() < min(settled + SETTLED_SECONDS, started + MOST_SECONDS):
            parts = client.query(PARTS).result_rows[0]
            if parts != last or client.query(MERGES).result_rows[0][0]:
                last, settled = parts, time.monotonic()
            time.sleep(0.1)
    print(json.dumps(parts[0]))


if __name__ == "__main__":
    main()
