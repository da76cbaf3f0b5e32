"""The cost of redaction per record: the sample records of each tool through its adapter, by level.

Usage: ``python -m benchmarks.redaction FOLDER``, the folder with one folder of records per tool.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from grantledger.producers.adapters import Adapter, RecordError, make_adapter
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import inputs
from grantledger.producers.redaction.file import make_redactor
from grantledger.producers.redaction.redactor import LEVELS, Level

FILES = {
    "cloudtrail": "aws_cloudtrail/cloudtrail.jsonl",
    "kubernetes": "kubernetes/audit.jsonl",
    "okta": "okta/system_log.jsonl",
    "teleport": "teleport/audit_fixtures.jsonl",
    "vault": "vault/audit.log",
}
LEAST_RECORDS = 3_000
ROUNDS = 5


def main(folder: Path) -> None:
    """Print microseconds of CPU per record, the best of several rounds."""
    print(f"{'µs per record':<14}{'off':>8}{'default':>10}{'strict':>8}")
    for tool, name in FILES.items():
        records = _records(tool, folder / name)
        costs = [min(_seconds(tool, level, records) for _ in range(ROUNDS)) for level in LEVELS]
        off, default, strict = (cost / len(records) * 1e6 for cost in costs)
        print(f"{tool:<14}{off:>8.0f}{default:>10.0f}{strict:>8.0f}")


def _records(tool: str, file: Path) -> list[tuple]:
    found: list[tuple] = []
    importer = Importer(make_adapter(tool), lambda event: None)
    for source in inputs([str(file)]):
        with source:
            found = [(one.raw, one.location, one.values) for one in source.records(importer.envelopes)]
    return found * (1 + LEAST_RECORDS // len(found))


def _seconds(tool: str, level: Level, records: list[tuple]) -> float:
    adapter: Adapter = make_adapter(tool, redactor=make_redactor(level))
    began = time.process_time()
    for raw, location, values in records:
        with suppress(RecordError):
            adapter.read(raw, location, values)
    return time.process_time() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
