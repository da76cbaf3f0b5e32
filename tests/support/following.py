"""A follower of real files with a Kafka that only remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grantledger.producers.follow.config import FollowedTool
from grantledger.producers.follow.follower import Follower
from grantledger.producers.follow.sender import EventSender
from grantledger.producers.follow.state_file import StateFile
from grantledger.producers.follow.tool_follower import ToolFollower
from grantledger.schemas.event import SOURCE_REPORT, Event


class Kafka:
    """A client whose Kafka acknowledges at once, unless it is ``away``."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reports: list[Event] = []
        self.acknowledged = 0
        self.away = False
        self.on_wait: Callable[[], object] = lambda: None

    def send(self, event: Event) -> Event:
        (self.reports if event.event_type == SOURCE_REPORT else self.events).append(event)
        return event

    def wait(self, timeout: float) -> bool:
        self.on_wait()
        if not self.away:
            self.acknowledged = len(self.events)
        return not self.away

    def broker_hint(self) -> str:
        return " (last error: away)"

    @property
    def ids(self) -> list[str]:
        return [event.event_id for event in self.events]

    def sessions(self) -> list[str]:
        """Return the session ids of the events, in the order of sending."""
        return [str(event.session_id) for event in self.events]


class Follow:
    """Follows files step by step, as the loop does, with a clock of its own. ``kill`` forgets all but the state."""

    def __init__(self, folder: Path, *files: str, tool: str = "teleport", once: bool = False) -> None:
        self.kafka = Kafka()
        self.state_file = StateFile(folder / "state" / "positions.json")
        self.state_file.path.parent.mkdir(exist_ok=True)
        self.now = 1_000.0
        self._tool = FollowedTool(tool=tool, files=tuple(files))
        self._once = once
        self.start()

    def start(self) -> None:
        """Start with what the state file has."""
        self._sender = EventSender(self.kafka, lambda: False)  # type: ignore[arg-type]
        state = self.state_file.read().get(self._tool.name)
        self.follower = ToolFollower(self._tool, state, self._sender.send, once=self._once)

    def step(self, *, seconds: float = 0.5, write: bool = True) -> None:
        """Look, read everything, and write the positions."""
        self.now += seconds
        self.follower.look(self.now)
        moved = False
        for _ in range(100):
            busy = self.follower.turn(self.now)
            self._sender.settle()
            moved |= self.follower.advance(self.now)
            if not busy:
                break
        if moved and write:
            self.state_file.write({self._tool.name: self.follower.state()})

    def kill(self) -> None:
        """End without a word."""
        self.follower.close()

    def restart(self) -> None:
        """Kill and start again."""
        self.kill()
        self.start()

    def taken(self) -> list[str]:
        """Return the session ids that were sent since the last call."""
        found = self.kafka.sessions()
        self.kafka.events.clear()
        return found


def run_once(folder: Path, *files: str, tool: str = "teleport", kafka: Kafka | None = None) -> tuple[Kafka, Follower]:
    """Follow to the ends with the real loop."""
    kafka = kafka or Kafka()
    state = StateFile(folder / "positions.json")
    followed = FollowedTool(tool=tool, files=files)
    with state.locked():
        follower = Follower([followed], state, lambda _tool: kafka, once=True)  # type: ignore[arg-type,return-value]
        follower.run()
    return kafka, follower
