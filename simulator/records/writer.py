"""The base class of all record writers: it turns a lifecycle, step by step, into the tool's native records."""

from __future__ import annotations

import json
import random
import uuid
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from ...base.times import micros_of
from ...schemas.event import Resource
from ..lifecycle import CHECKS, CLAIMS, Lifecycle, Step, StepKind, Tool
from .program import INTRUDER, GrantName, Program


class NativeRecord(NamedTuple):
    """One record as its tool writes it, without a line end."""

    tool: Tool
    raw: bytes


class RecordWriter(ABC):
    """Writes one lifecycle in the format of a tool. ``rng`` is for the ids that the tool would generate."""

    DIGITS: ClassVar[int]
    """The number of digits after the second in the tool's times."""
    closings: tuple[tuple[StepKind, ...], ...]
    """In order: a step that opens something, the step that we use to close it, and other steps that close it."""
    grant_id: str
    """The grant's id in the ledger."""
    session_id = ""
    """The id of the session, if the tool has one."""
    lease_id = ""
    """The id of the lease, once the lifecycle has one."""

    @property
    def lease_path(self) -> str:
        """The id of the lease's grant."""
        return self.lease_id

    def __init__(self, lifecycle: Lifecycle, start: datetime, rng: random.Random, checker: Program) -> None:
        self.lifecycle = lifecycle
        self.start = start.astimezone(UTC)
        self.rng = rng
        self.checker = Program(instance=lifecycle.checker) if lifecycle.checker else checker
        self._done: set[StepKind] = set()
        self._records: list[NativeRecord] = []
        self.prepare()

    def write(self, step: Step, at: datetime | None = None) -> list[NativeRecord]:
        """Return the records of a step, at the planned time or at another one."""
        self._done.add(step.kind)
        moment = at.astimezone(UTC) if at else self.start + timedelta(seconds=step.after)
        if step.kind is StepKind.SENT_AGAIN:
            return list(self._records)
        if step.kind in CHECKS:
            removal = self.checker.removal(self.grant(step.kind), moment, self.new_id())
            records = [NativeRecord("emit", json_line(removal))]
        elif step.kind in CLAIMS:
            records = [NativeRecord("emit", json_line(self._claim(step.kind, moment)))]
        else:
            native = self.records(step, self.clock(moment))
            records = [NativeRecord(self.lifecycle.tool, json_line(record)) for record in native]
        self._records += records
        return records

    def _claim(self, kind: StepKind, at: datetime) -> dict[str, Any]:
        instance, names_source = self.lifecycle.intruder
        grant = self.grant(StepKind.CHECKED)
        grant = grant if names_source else grant._replace(source=None)
        program = Program(INTRUDER, instance)
        if kind is StepKind.FALSELY_REMOVED:
            return program.removal(grant, at, self.new_id())
        return program.extension(grant, at, self.new_id(), datetime(2090, 1, 1, tzinfo=UTC))

    def close(self, now: datetime) -> list[NativeRecord]:
        """Return the records that end all open access, so that a stopped simulation leaves none behind."""
        return [record for kind in self.open_ends() for record in self.write(Step(0.0, kind), now)]

    def open_ends(self) -> list[StepKind]:
        """Return the steps that end all open access and sessions."""
        done, steps = set(self._done), []
        for opened, step, *others in self.closings:
            if opened in done and not done & {step, *others}:
                done.add(step)
                steps.append(step)
        return steps

    def clock(self, moment: datetime) -> datetime:
        """Return the time that the tool's clock shows."""
        return moment + timedelta(seconds=self.lifecycle.clock_ahead)

    def written_time(self, kind: StepKind, moment: datetime) -> int:
        """Return the time in the records of a step at a given moment, in microseconds since 1970."""
        return micros_of(moment if kind in (*CHECKS, *CLAIMS) else truncate(self.clock(moment), self.DIGITS))

    @property
    def ends(self) -> datetime:
        """When the access must end, by the tool's clock."""
        return self.clock(self.start) + timedelta(seconds=self.lifecycle.grant_ends)

    @property
    def until(self) -> int:
        """When the access must end according to the tool's records, in microseconds since 1970."""
        return micros_of(self.ends)

    def new_id(self) -> str:
        """Return a random id, as the tool would generate it."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def grant(self, kind: StepKind) -> GrantName:
        """Return the grant, or the lease, as the access checker identifies it."""
        target, tenant = self.lifecycle.target, self.lifecycle.tenant
        resource = Resource(target.kind, target.name)
        return GrantName(self.grant_id, self.lifecycle.person.email, resource, target.role, self.source, tenant)

    @property
    @abstractmethod
    def source(self) -> tuple[str, str]:
        """System and instance in the events of the tool."""

    @abstractmethod
    def prepare(self) -> None:
        """Generate the ids of the lifecycle, once."""

    @abstractmethod
    def records(self, step: Step, at: datetime) -> list[dict[str, Any]]:
        """Return the tool's records of a step, at a time by the tool's clock."""


def json_line(record: dict[str, Any]) -> bytes:
    """Return a record as one line of compact JSON, without a line end."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def rfc3339(at: datetime, digits: int = 6) -> str:
    """Return a UTC time with a number of digits after the second."""
    text = at.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return (text[: len(text) - 6 + digits] if digits else text[:-7]) + "Z"


def truncate(at: datetime, digits: int) -> datetime:
    """Return a time truncated to a number of digits after the second."""
    unit: int = 10 ** (6 - digits)
    return at.replace(microsecond=at.microsecond // unit * unit)
