"""Sample records of the tools, for the benchmarks of adapters."""

from __future__ import annotations

from pathlib import Path

from grantledger.producers.adapters import make_adapter
from grantledger.producers.envelopes import ToolRecord
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import inputs

FILES = {
    "cloudtrail": "aws_cloudtrail/cloudtrail.jsonl",
    "hoop": "hoop/events.jsonl",
    "kubernetes": "kubernetes/audit.jsonl",
    "okta": "okta/system_log.jsonl",
    "sudo": "sudo",
    "teleport": "teleport/audit_fixtures.jsonl",
    "vault": "vault/audit.log",
}
"""By tool, in a folder with one folder of records per tool."""
LEAST_RECORDS = 3_000


def records(tool: str, folder: Path) -> list[ToolRecord]:
    """Return the records of a tool, repeated until they are enough for a measurement."""
    importer = Importer(make_adapter(tool), lambda event: None)
    found: list[ToolRecord] = []
    for source in inputs([str(folder / FILES[tool])]):
        with source:
            found += source.records(importer.envelopes)
    return found * (1 + LEAST_RECORDS // len(found))
