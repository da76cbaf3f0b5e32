"""The loop of ``grantledger follow``: look, read a portion, wait for Kafka, write the positions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ...base.health import HEALTH, Condition
from ...schemas.event import Event
from ..adapters import DEFAULT_REDACTOR
from ..client import Client
from ..importer import ImportReport
from ..redaction.redactor import Redactor
from .config import FollowedTool
from .sender import STOP_SECONDS, EventSender, InterruptedWaitError
from .state_file import StateFile, ToolState
from .tool_follower import ToolFollower

LOOK_SECONDS = 0.5
WRITE_SECONDS = 1.0
"""The positions are written this often while more is there to read."""
_SHARE = 10
"""A look, or writing the positions, takes a tenth of the time at most, however many files there are."""
ONCE_SECONDS = 30.0
"""How long ``once`` waits for Kafka."""


class Follower:
    """Follows several tools in one thread.

    Args:
        tools: what to follow.
        state_file: has the positions. The caller holds its lock.
        open_client: returns the client for the events of a tool. Tools with the same client share it.
        once: read to the ends and stop there.
        redactors: what removes secrets, by the name of a tool; the others have the default.
    """

    def __init__(
        self,
        tools: Sequence[FollowedTool],
        state_file: StateFile,
        open_client: Callable[[FollowedTool], Client],
        *,
        once: bool = False,
        redactors: Mapping[str, Redactor | None] = MappingProxyType({}),
    ) -> None:
        self._stop = threading.Event()
        self._once = once
        self._state_file = state_file
        self._kept: dict[str, ToolState] = state_file.read()
        self._senders: list[EventSender] = []
        self._tools = [
            ToolFollower(
                tool,
                self._kept.get(tool.name),
                self._send_with(open_client(tool)),
                once=once,
                redactor=redactors.get(tool.name, DEFAULT_REDACTOR),
            )
            for tool in tools
        ]

    @property
    def acknowledged(self) -> int:
        """The number of events acknowledged so far."""
        return sum(sender.client.acknowledged for sender in self._senders)

    def report(self) -> ImportReport:
        """Return what was read."""
        report = ImportReport()
        for tool in self._tools:
            report.add(tool.report)
        return report

    def problems(self) -> list[str]:
        """Return what cannot be read, one sentence each."""
        return [problem for tool in self._tools for problem in tool.problems]

    def _unreadable(self) -> Condition | None:
        problems = self.problems()
        return Condition("files", f"waits for files: {'; '.join(problems)}") if problems else None

    def stop(self) -> None:
        """Let :meth:`run` return soon, as a signal handler may do."""
        self._stop.set()

    def run(self) -> None:
        """Follow until :meth:`stop`, or to the ends.

        Raises:
            DeliveryError, ClientError: Kafka refused an event, or did not answer in time. The positions are those of
                the last acknowledgement.
            StateNotWrittenError: the positions cannot be written.
        """
        look_at = write_at = stop_at = 0.0
        # The time of the first look must be known later, also if there is nothing to read yet.
        unwritten = any(tool.name not in self._kept for tool in self._tools)
        try:
            HEALTH.asks("files", self._unreadable)
            HEALTH.settle("start")
            while not stop_at or time.monotonic() < stop_at:
                HEALTH.turned()
                if self._stop.is_set() and not stop_at:
                    # What was written before the stop is still read: a sidecar is stopped after its program.
                    stop_at, look_at = time.monotonic() + STOP_SECONDS, 0.0
                now = time.time()
                if time.monotonic() >= look_at:
                    look_at = self._next(LOOK_SECONDS, self._look)
                busy = max([tool.turn(now) for tool in self._tools])
                for sender in self._senders:
                    sender.settle()
                unwritten |= max([tool.advance(now) for tool in self._tools])
                if unwritten and time.monotonic() >= write_at:
                    write_at, unwritten = self._next(WRITE_SECONDS, self._write), False
                if busy:
                    continue
                if stop_at or self._once or all(tool.ended for tool in self._tools):
                    break
                self._stop.wait(max(0.0, look_at - time.monotonic()))
            if unwritten:
                self._write()
            for tool in self._tools:
                tool.send_reports(last=True)
            for sender in self._senders:
                sender.settle()
        except InterruptedWaitError:
            pass  # what is not acknowledged is read again after the next start
        finally:
            for tool in self._tools:
                tool.close()

    def _look(self) -> None:
        for tool in self._tools:
            tool.look(time.time())

    @staticmethod
    def _next(pause: float, step: Callable[[], object]) -> float:
        """Do a step, and return when to do it again."""
        began = time.monotonic()
        step()
        ended = time.monotonic()
        return ended + max(pause, (ended - began) * _SHARE)

    def _write(self) -> None:
        self._state_file.write(self._kept | {tool.name: tool.state() for tool in self._tools})

    def _send_with(self, client: Client) -> Callable[[Event], None]:
        sender = next((one for one in self._senders if one.client is client), None)
        if sender is None:
            sender = EventSender(client, self._stop.is_set, ONCE_SECONDS if self._once else None)
            self._senders.append(sender)
        return sender.send
