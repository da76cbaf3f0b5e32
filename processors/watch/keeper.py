"""Keeps what the watch knows: writes facts away in segments as they come, and leaves out what is over.

After a start everything kept is read back and the log is read from there on, so a start takes as
long as there is access to watch, however long the log has become.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar
from uuid import uuid4

import pyarrow as pa
import structlog

from .lives import About, Row, life_of
from .memory import (
    SEGMENT_BYTES,
    SEGMENT_ROWS,
    Manifest,
    MemoryUnreadableError,
    Place,
    Segment,
    decode,
    encode,
    joined,
    keys_in,
    manifest_of,
)  # fmt: skip
from .reading import Rows, rows_of
from .source_memory import kept as kept_of
from .sources import DAY
from .state import WatchState

Answer = TypeVar("Answer")
log = structlog.get_logger("grantledger.watch")

MANY = 16
"""Segments that are not half full, after which they become one."""


class Blocking(Protocol):
    """Makes calls that may block, one after the other."""

    def __call__(self, call: Callable[[], Answer], /) -> Awaitable[Answer]:
        """Make a call."""
        ...


class Shelf(Protocol):
    """Where segments and manifests are kept. Every call may block."""

    def recall(self) -> tuple[str, bytes]:
        """Return the id of the log, and the manifest of what was kept; nothing where nothing was."""
        ...

    def segments(self, offsets: Iterable[int]) -> Iterator[bytes]:
        """Yield the segments at these offsets."""
        ...

    def remember(
        self, segments: Mapping[str, bytes], gone: Iterable[str], manifest: Callable[[Mapping[str, int]], bytes]
    ) -> None:
        """Keep segments, drop others, and say what counts from now on, given where the segments lie."""
        ...


class Keeper:
    """What is kept, and what is to be kept next.

    Args:
        every: microseconds after which even little is written.
        days: how many days what is over is kept.
    """

    def __init__(self, shelf: Shelf, blocking: Blocking, *, every: int, days: int) -> None:
        self._shelf, self._blocking, self._every, self._days = shelf, blocking, every, days
        self._kept = Manifest("")
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._since = 0
        self._writing = asyncio.Lock()
        self._sorting = False
        """Whether what is kept is being written anew without what is over."""
        self._gone: dict[About, int] = {}
        """What was forgotten since that was done last, and the index before which what was told of it is."""
        self._today = self._forgot = -1
        self._unsorted = 0
        """Facts that came since what is kept was last looked through."""

    async def recall(self) -> Place:
        """Find out what was kept; return where to go on reading.

        Raises:
            KafkaUnavailableError: the brokers do not answer.
        """
        name, value = await self._blocking(self._shelf.recall)
        kept = _readable(value)
        if kept is None or kept.log != name:
            if value:
                log.warning("not_recalled", reason="of another format" if kept is None else "of another log")
            kept = Manifest(name, drafts=keys_in(value))  # of no use, and dropped with the next that is kept
        self._kept = kept
        self._today = kept.days[-1][0] if kept.days else -1
        return kept.place

    async def load(self, state: WatchState) -> AsyncIterator[Rows]:
        """Yield what was kept, rows of facts by the segment, and give the state what else it must know at the end."""
        segments = sorted(self._kept.segments, key=lambda one: one.offset)
        values = self._shelf.segments([one.offset for one in segments])
        for _ in segments:
            rows = await self._blocking(lambda: rows_of(decode(next(values, b""))))
            yield rows
        state.resume(self._kept.place.size, self._kept.sources)

    async def discard(self) -> None:
        """Throw away everything kept."""
        nothing = Manifest(self._kept.log)
        await self._put(joined([]), [one.key for one in self._kept.segments], lambda _: nothing)

    def take(self, facts: pa.RecordBatch, boot: int) -> None:
        """Take note of facts that a state has taken."""
        if not facts.num_rows:
            return
        if not self._pending:
            self._since = boot
        self._pending.append(facts)
        self._pending_rows += facts.num_rows
        self._pending_bytes += facts.nbytes
        self._unsorted += facts.num_rows
        day, first = facts.column("append")[-1].as_py() // DAY, facts.column("index")[0].as_py()
        if day > self._today:
            self._today = day
            self._kept = replace(self._kept, days=(*self._kept.days[-self._days :], (day, first)))

    def is_due(self, boot: int) -> bool:
        """Whether there is enough to write, or it has waited long enough."""
        rows, size = self._pending_rows, self._pending_bytes
        return rows >= SEGMENT_ROWS or size >= 4 * SEGMENT_BYTES or (rows > 0 and boot - self._since >= self._every)

    def is_time_to_forget(self, *, live: bool) -> bool:
        """Whether a day has begun, by the brokers' time, since what is over was last forgotten.

        Args:
            live: false while the past is read: then only where much was heard since, because days pass quickly.
        """
        return self._forgot < self._today and (live or self._unsorted >= max(5 * SEGMENT_ROWS, self._rows // 4))

    @property
    def _rows(self) -> int:
        return sum(one.rows for one in self._kept.segments)

    async def write(self, place: Place, state: WatchState) -> None:
        """Write away what was taken. The state must have taken everything below the place, and nothing else.

        Raises:
            KafkaException, KafkaUnavailableError: it is not kept.
        """
        facts, self._pending = joined(self._pending), []
        self._pending_rows = self._pending_bytes = 0
        sources = tuple(kept_of(*one) for one in state.sources.items())
        async with self._writing:
            few = [one for one in self._kept.segments if one.is_small]
            old = few if len(few) >= MANY and not self._sorting else []
            if old:
                facts = joined([*await self._read(old), facts])
            drafts = self._kept.drafts  # in progress, or left over where a process ended
            left = _without(self._kept.segments, old)
            gone = [*(one.key for one in old), *(() if self._sorting else drafts)]
            kept = replace(self._kept, place=place, sources=sources, drafts=drafts if self._sorting else ())
            await self._put(facts, gone, lambda new: replace(kept, segments=(*left, *new)))

    async def forget(self, state: WatchState) -> None:
        """Forget what is over for long. Where that is much of what is kept, write the rest anew.

        All of it changes at once: of a life of which only some is forgotten, the rest would tell another story.

        Raises:
            KafkaException, KafkaUnavailableError: it is not kept.
        """
        self._forgot = self._today
        oldest = min(self._today, state.judged // DAY) - self._days  # what was not judged is not over
        index = next((first for day, first in self._kept.days if day >= oldest), 0)
        if not index or self._kept.days[0][0] > oldest:
            return
        for about in state.forget(oldest * DAY, index):
            if about is None:
                await asyncio.sleep(0)
            else:
                self._gone[about] = index
        if self._unsorted < self._rows // 4:
            return
        self._unsorted = 0
        async with self._writing:
            segments, self._sorting = self._kept.segments, True
        try:
            await self._sort_out(segments, lambda row: self._is_gone(row, index, state))
        finally:
            self._sorting = False

    def _is_gone(self, row: Row, index: int, state: WatchState) -> bool:
        if (about := life_of(row)) in self._gone:
            return row[0] < self._gone[about]  # what was told of it since is a new life
        return row[0] < index and not state.remembers(row)

    async def _sort_out(self, segments: tuple[Segment, ...], is_gone: Callable[[Row], bool]) -> None:
        stays: dict[Segment, list[bool]] = {}
        for segment in segments:
            [facts] = await self._read([segment])
            stay = [not is_gone(row) for row in _lives(facts)]
            await asyncio.sleep(0)
            if not all(stay):
                stays[segment] = stay
        rest = sum(map(sum, stays.values()))
        if sum(map(len, stays.values())) - rest < sum(one.rows for one in segments) // 8:
            return
        made: tuple[Segment, ...] = ()
        waiting: list[pa.RecordBatch] = []
        for number, (segment, stay) in enumerate(stays.items(), 1):
            [facts] = await self._read([segment])
            waiting.append(facts.filter(pa.array(stay, pa.bool_())))
            if number == len(stays) or sum(one.num_rows for one in waiting) >= SEGMENT_ROWS:
                async with self._writing:
                    made += await self._put(joined(waiting), [], _drafted(self._kept))
                waiting = []
        async with self._writing:
            kept = replace(self._kept, segments=(*_without(self._kept.segments, stays), *made), drafts=())
            await self._put(joined([]), [one.key for one in stays], lambda _: kept)
        self._gone.clear()

    async def _read(self, segments: Iterable[Segment]) -> list[pa.RecordBatch]:
        offsets = [one.offset for one in segments]
        return await self._blocking(lambda: [decode(value) for value in self._shelf.segments(offsets)])

    async def _put(
        self, facts: pa.RecordBatch, gone: list[str], change: Callable[[tuple[Segment, ...]], Manifest]
    ) -> tuple[Segment, ...]:
        """Write facts in new segments, drop others, and change the manifest, all at once."""
        values = await self._blocking(lambda: list(encode(facts)))
        segments = {f"segment-{uuid4().hex}": value for _, value in values}
        new: list[Segment] = []

        def manifest(offsets: Mapping[str, int]) -> bytes:
            for key, (rows, value) in zip(segments, values, strict=True):
                new.append(Segment(key, offsets[key], rows, len(value)))
            return change(tuple(new)).encode()

        await self._blocking(lambda: self._shelf.remember(segments, gone, manifest))
        self._kept = replace(change(tuple(new)), days=self._kept.days)
        log.info("kept", segments=len(self._kept.segments), facts=sum(one.rows for one in self._kept.segments))
        return tuple(new)


def _drafted(kept: Manifest) -> Callable[[tuple[Segment, ...]], Manifest]:
    """Return what adds segments that do not count yet."""
    return lambda new: replace(kept, drafts=(*kept.drafts, *(one.key for one in new)))


def _without(segments: Iterable[Segment], gone: Iterable[Segment]) -> tuple[Segment, ...]:
    dropped = set(gone)
    return tuple(one for one in segments if one not in dropped)


def _readable(value: bytes) -> Manifest | None:
    try:
        return manifest_of(value) if value else None
    except MemoryUnreadableError as error:
        log.warning("memory_unreadable", reason=str(error))
        return None


def _lives(facts: pa.RecordBatch) -> Iterator[Row]:
    """Yield where each fact belongs."""
    names = ("event_type", "grant_id", "request_id", "session_id")
    columns = (
        [value.decode("utf-8", "replace") if value else "" for value in facts.column(name).to_pylist()]
        for name in names
    )
    return zip(facts.column("index").to_pylist(), *columns, strict=True)
