"""How fast adapters are: records of each tool are parsed, redacted, mapped and encoded, without Kafka.

Usage: ``python -m benchmarks.adapters FOLDER``, the folder with one folder of records per tool. The last column
compares with parsing the JSON of the same records, in the same run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from grantledger.producers.adapters import RecordError, Skipped, make_adapter
from grantledger.producers.envelopes import ToolRecord
from grantledger.producers.redaction.file import make_redactor
from grantledger.schemas.codec import EventEncoder

from .samples import FILES, records

ROUNDS = 5


def main(folder: Path) -> None:
    """Print rates per second of CPU, the best of several rounds."""
    print(f"{'per second of CPU':<18}{'records':>10}{'events':>10}{'relative to json.loads':>24}")
    for tool in FILES:
        given = records(tool, folder)
        parsing = min(_cpu(lambda given=given: [json.loads(one.raw) for one in given]) for _ in range(ROUNDS))
        events = _mapped(tool, given)
        reading = min(_cpu(lambda tool=tool, given=given: _mapped(tool, given)) for _ in range(ROUNDS))
        rates = f"{len(given) / reading:>10,.0f}{events / reading:>10,.0f}"
        print(f"{tool:<18}{rates}{parsing / reading:>24.2f}")


def _mapped(tool: str, given: list[ToolRecord]) -> int:
    """Return the number of events."""
    adapter, encoder, events = make_adapter(tool, redactor=make_redactor("default")), EventEncoder(), 0
    for record in given:
        with suppress(RecordError):
            mapped = adapter.read(record.raw, record.location)
            if not isinstance(mapped, Skipped):
                events += len(mapped)
                for event in mapped:
                    encoder.encode(event)
    return events


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
