"""Small inputs that failed in the field. They are not ours to ship: tests read them where their folder is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from grantledger.producers.adapters import Location
from grantledger.producers.event_json import event_from_json
from grantledger.producers.json_fields import parse_object
from grantledger.schemas.event import Event, EventSource


@dataclass(frozen=True)
class Cases:
    """The folder of the cases. Times in them are relative to the moment at which they are played."""

    folder: Path

    def path(self, name: str) -> Path:
        """Return the only file whose name begins like this."""
        (found,) = self.folder.glob(f"{name}*")
        return found

    def text(self, name: str, now: datetime) -> str:
        """Return a file with the times filled in."""

        def moment(match: re.Match[str]) -> datetime:
            return now + timedelta(seconds=int(match[1]))

        text = self.path(name).read_text("utf-8")
        text = re.sub(r"@AWS([+-]\d+)@", lambda one: f"{moment(one):%b %-d, %Y, %-I:%M:%S %p}", text)
        text = re.sub(r"@EPOCH([+-]\d+)@", lambda one: str(int(moment(one).timestamp())), text)
        return re.sub(r"@([+-]\d+)@", lambda one: f"{moment(one):%Y-%m-%dT%H:%M:%SZ}", text)

    def emitted(self, name: str, now: datetime) -> Iterator[Event]:
        """Yield the events that `grantledger emit --stdin` sends for a file, a second after each other."""
        for number, line in enumerate(self.text(name, now).splitlines()):
            event = event_from_json(parse_object(line.encode(), Location(name, number + 1)))
            source = event.source if event.source.system else EventSource("emit", "host", f"{name}-{number}", "emit")
            yield replace(event, occurred_at=now + timedelta(seconds=number), source=source, event_id="")
