"""What any bytes become in the adapter of every tool, as a file that is imported."""

from __future__ import annotations

import io
from pathlib import Path

from grantledger.producers.adapters import ADAPTERS, make_adapter
from grantledger.producers.importer import Importer, ImportReport
from grantledger.producers.input_files import InputError, InputFile
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event

ENCODER = EventEncoder()


def read_by_all(data: bytes) -> None:
    """Import a file with every adapter.

    Raises AssertionError if text gives no record, any other error if an adapter or the encoder crashes. What is not
    understood is counted as skipped or failed.
    """
    for tool in ADAPTERS:
        report = imported(tool, data)
        assert report is None or report.records or not data.strip(b"\0 \t\r\n\xef\xbb\xbf\xff\xfe"), tool


def imported(tool: str, data: bytes) -> ImportReport | None:
    """Return the counts of a file, the events of which are encoded; None if it is damaged."""

    def send(event: Event) -> None:
        ENCODER.encode(event)
        assert event.key.encode()

    importer = Importer(make_adapter(tool), send)
    try:
        with InputFile("fuzzed", io.BytesIO(data), len(data)) as file:
            importer.run(file)
    except InputError:
        return None
    return importer.report


def seeds(samples: Path) -> list[bytes]:
    """Return the records of the samples and of the tests, each as a file."""
    lines: list[bytes] = []
    for path in sorted((*samples.rglob("*"), *Path(__file__).parent.glob("*.jsonl"))):
        if path.suffix in (".jsonl", ".log"):
            lines += path.read_bytes().splitlines()
        elif path.suffix == ".json":
            lines.append(path.read_bytes())
    return [line for line in lines if 0 < len(line) <= 16_384]
