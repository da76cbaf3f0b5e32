"""What the tellers of all tools have in common: a life turned into the tool's own lines, step by step."""

from __future__ import annotations

import json
import random
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from ..schemas.event import Resource
from .life import Deed, Life, Step, Tool
from .own import CHECKS, Own

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Line(NamedTuple):
    """One native line and whose it is."""

    tool: Tool
    raw: bytes


class Held(NamedTuple):
    """A grant as the checker knows it: what it looks for to see whether it is gone."""

    grant_id: str
    subject: str
    resource: Resource
    entitlement: str


class Teller(ABC):
    """Tells one life in the format of its tool.

    Args:
        life: what happens.
        start: when it begins, with a zone.
        rng: for the ids that the tool would make up.
        checker: the company's own program that looks whether access is gone.
    """

    DIGITS: ClassVar[int]
    """How many digits of the second the tool's records have."""

    def __init__(self, life: Life, start: datetime, rng: random.Random, checker: Own | None = None) -> None:
        self.life = life
        self.start = start.astimezone(UTC)
        self.rng = rng
        self.checker = Own(instance=life.checker) if life.checker else checker or Own()
        self.told: list[Deed] = []
        self._lines: list[Line] = []

    def tell(self, step: Step, at: datetime | None = None) -> list[Line]:
        """Return the lines that are written about a step, at its time or at another."""
        self.told.append(step.deed)
        moment = at.astimezone(UTC) if at else self.start + timedelta(seconds=step.after)
        if step.deed is Deed.TOLD_AGAIN:
            return list(self._lines)
        if step.deed in CHECKS:
            held = self.held(step.deed)
            lines = [Line("own", line_of(self.checker.gone(*held, moment, self.new_id())))]
        else:
            lines = [Line(self.life.tool, line_of(record)) for record in self.records(step, self.clock(moment))]
        self._lines += lines
        return lines

    def wind_down(self, now: datetime) -> list[Line]:
        """Return the lines that end whatever is still open, so that a stopped sample leaves no access behind."""
        return [line for deed in self.open_ends() for line in self.tell(Step(0.0, deed), now)]

    def clock(self, moment: datetime) -> datetime:
        """Return what the tool's clock shows at a moment."""
        return moment + timedelta(seconds=self.life.fast)

    def written(self, deed: Deed, moment: datetime) -> int:
        """Return the time that the records of a deed at a moment hold, in microseconds since 1970."""
        return micros(moment if deed in CHECKS else cut(self.clock(moment), self.DIGITS))

    @property
    def ends(self) -> datetime:
        """When the access must have ended, by the tool's clock."""
        return self.clock(self.start) + timedelta(seconds=self.life.grant_ends)

    @property
    def until(self) -> int:
        """When the access must have ended by what the tool's records say, in microseconds."""
        return micros(self.ends)

    def new_id(self) -> str:
        """Return an id as the tool would make it up."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    @property
    @abstractmethod
    def grant_id(self) -> str:
        """The id under which the ledger knows the grant."""

    @property
    def session_id(self) -> str:
        """The id of the life's session, where it has one."""
        return ""

    @abstractmethod
    def held(self, deed: Deed) -> Held:
        """Return what the checker looks for."""

    @abstractmethod
    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the tool's records of a step, at a time by the tool's clock."""

    @abstractmethod
    def open_ends(self) -> list[Deed]:
        """Return the deeds that would end what has been told so far."""


def line_of(record: dict[str, Any]) -> bytes:
    """Return a record as the tool writes it: one line of compact JSON, without the end of the line."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def stamp(at: datetime, digits: int = 6) -> str:
    """Return an RFC 3339 time in UTC with so many digits of the second."""
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return (text[: len(text) - 6 + digits] if digits else text[:-7]) + "Z"


def cut(at: datetime, digits: int) -> datetime:
    """Return a time without the digits that a tool does not write."""
    unit: int = 10 ** (6 - digits)
    return at.replace(microsecond=at.microsecond // unit * unit)


def micros(at: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)
