"""The cost of redaction per record: the sample records of each tool through its adapter, by level.

Usage: ``python -m benchmarks.redaction FOLDER``, the folder with one folder of records per tool.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from grantledger.producers.adapters import RecordError, make_adapter
from grantledger.producers.envelopes import ToolRecord
from grantledger.producers.redaction.file import make_redactor
from grantledger.producers.redaction.redactor import LEVELS, Level

from .samples import FILES, records

ROUNDS = 5


def main(folder: Path) -> None:
    """Print microseconds of CPU per record, the best of several rounds."""
    print(f"{'µs per record':<14}{'off':>8}{'default':>10}{'strict':>8}")
    for tool in FILES:
        given = records(tool, folder)
        off, default, strict = (min(_seconds(tool, level, given) for _ in range(ROUNDS)) for level in LEVELS)
        print(f"{tool:<14}" + "".join(f"{one / len(given) * 1e6:>{width}.0f}"
                                      for one, width in ((off, 8), (default, 10), (strict, 8))))  # fmt: skip


def _seconds(tool: str, level: Level, given: list[ToolRecord]) -> float:
    adapter = make_adapter(tool, redactor=make_redactor(level))
    began = time.process_time()
    for record in given:
        with suppress(RecordError):
            adapter.read(record.raw, record.location, record.values)
    return time.process_time() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
