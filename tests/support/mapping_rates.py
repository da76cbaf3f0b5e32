"""How many records of each tool's samples become events: the lines of the table in docs/adapters.md.

PYTHONPATH=tests python tests/support/mapping_rates.py SAMPLES
"""

from __future__ import annotations

import sys
from pathlib import Path

from grantledger.producers.adapters import ADAPTERS, Adapter, Location, Skipped, make_adapter
from support.adapters import as_jsonlog

OWN = Path(__file__).resolve().parent
FILES: dict[str, tuple[str, str]] = {
    "cloudtrail": ("aws_cloudtrail/cloudtrail.jsonl", "an attack on a test account, by its owner"),
    "hoop": ("hoop/events.jsonl", "the samples of hoop's event catalogue"),
    "kubernetes": ("kubernetes/audit.jsonl", "a test cluster"),
    "mcp": (str(OWN / "mcp_messages.jsonl"), "a client and a server of the MCP SDK for Python"),
    "okta": ("okta/system_log.jsonl", "tests of a detection product"),
    "postgresql": ("pgaudit/audit_lines.log", "the expected output of pgaudit's tests"),
    "sudo": ("sudo", "sudo's own tests"),
    "teleport": ("teleport/audit_fixtures.jsonl", "fixtures of Teleport's web page"),
    "vault": ("vault/audit.log", "a guide of HashiCorp"),
}
"""Per tool: records that the tool itself wrote, below the folder of samples or beside this file, and who made them."""


def records(tool: str, folder: Path, file: str | None = None) -> list[bytes]:
    """Return the sample records of a tool, or those in another file of the folder.

    Raises:
        FileNotFoundError: there are none in this folder.
    """
    path = folder / (file or FILES[tool][0])
    if path.is_dir():  # one record per file, over several lines
        return [each.read_bytes() for each in sorted(path.iterdir())]
    lines = path.read_bytes().splitlines()
    return [as_jsonlog(line.decode(), number) for number, line in enumerate(lines)] if tool == "postgresql" else lines


def read_all(adapter: Adapter, lines: list[bytes]) -> list[tuple[object, ...] | Skipped]:
    """Return the outcome of each record."""
    return [adapter.read(line, Location("samples", number)) for number, line in enumerate(lines, 1)]


def row(tool: str, outcomes: list[tuple[object, ...] | Skipped]) -> str:
    """Return the line of a tool."""
    mapped = [one for one in outcomes if not isinstance(one, Skipped)]
    counts = (len(outcomes), len(mapped), sum(map(len, mapped)))
    return f"| {tool} | {' | '.join(f'{one:,}' for one in counts)} | {FILES[tool][1]} |"


if __name__ == "__main__":
    for name in sorted(ADAPTERS):
        print(row(name, read_all(make_adapter(name), records(name, Path(sys.argv[1])))))
