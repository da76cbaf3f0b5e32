"""What the tellers of all tools have in common: a life turned into the tool's own lines, step by step."""

from __future__ import annotations

import json
import random
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any

from .life import Deed, Life, Step


class Teller(ABC):
    """Tells one life in the format of its tool.

    Args:
        life: what happens.
        start: when it begins, with a zone.
        rng: for the ids that the tool would make up.
    """

    def __init__(self, life: Life, start: datetime, rng: random.Random) -> None:
        self.life = life
        self.start = start.astimezone(UTC)
        self.rng = rng
        self.told: list[Deed] = []

    def tell(self, step: Step, at: datetime | None = None) -> list[bytes]:
        """Return the lines that the tool writes about a step, at its time or at another."""
        self.told.append(step.deed)
        moment = at.astimezone(UTC) if at else self.start + timedelta(seconds=step.after)
        return [line_of(record) for record in self.records(step, moment)]

    def wind_down(self, now: datetime) -> list[bytes]:
        """Return the lines that end whatever is still open, so that a stopped sample leaves no access behind."""
        return [line for deed in self.open_ends() for line in self.tell(Step(0.0, deed), now)]

    @property
    def ends(self) -> datetime:
        """When the access must have ended."""
        return self.start + timedelta(seconds=self.life.grant_ends)

    def new_id(self) -> str:
        """Return an id as the tool would make it up."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    @abstractmethod
    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the tool's records of a step."""

    @abstractmethod
    def open_ends(self) -> list[Deed]:
        """Return the deeds that would end what has been told so far."""


def line_of(record: dict[str, Any]) -> bytes:
    """Return a record as the tool writes it: one line of compact JSON, without the end of the line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def stamp(at: datetime, digits: int = 6) -> str:
    """Return an RFC 3339 time in UTC with so many digits of the second."""
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text[: len(text) - 6 + digits] + "Z"
