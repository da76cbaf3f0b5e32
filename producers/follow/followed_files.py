"""The files of one tool: looks for them, reads them in the right order, and keeps their positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from ...base.text import printable
from ..envelopes import Envelopes
from . import metrics
from .decisions import Choice, Origin, decide
from .file_reader import EncodedFile, FileReader, GrowingFile, Take
from .folders import Folders
from .position import FilePosition

FORGET_SECONDS = 7 * 86_400.0
"""How long a position is kept whose content is in no file."""
MOST_OPEN = 256
"""Files that are open at one time; less than the usual limit of a process."""
_CLOCKS_DIFFER = 60_000_000_000
"""Nanoseconds by which the clock of a file server may be behind."""

log = structlog.get_logger("grantledger.follow")


@dataclass(slots=True)
class _Track:
    """A position with its reader. Without one, its file was not found yet, or its content is in no file.

    ``cold``: what lies before the position was read before the start only.
    """

    position: FilePosition
    reader: FileReader | None = None
    cold: bool = False
    missing: bool = False
    behind_since: float | None = None
    shown: str = ""
    """The file in the metrics."""

    def current(self) -> FilePosition:
        return self.position if self.reader is None else self.reader.position

    def seconds_behind(self) -> float:
        """Return for how long something of the file has not been acknowledged."""
        since = self.behind_since
        return 0.0 if since is None else max(0.0, time.time() - since)


class FollowedFiles:
    """The files of one tool.

    Args:
        name: of the tool.
        paths: what the user named.
        take: receives the records.
        remember: the adapter must know earlier records, so files are read from their beginnings after a start.
        since: time of the first look ever, in nanoseconds.
        positions: those that were kept.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[str],
        envelopes: Envelopes,
        take: Take,
        *,
        remember: bool,
        since: int,
        positions: Sequence[FilePosition],
    ) -> None:
        self.problems: dict[str, str] = {}
        self._name = name
        self._folders = Folders(paths)
        self._envelopes = envelopes
        self._take = take
        self._remember = remember
        self._since = since
        self._tracks = [_Track(position, cold=True) for position in positions]
        self._last: object = None

    def look(self, now: float) -> None:
        """Find the files, and decide what each of them is."""
        look = self._folders.look(track.current() for track in self._tracks)
        self.problems = look.problems
        stats = [(one.path, one.inode, one.size, one.modified) for one in look.found]
        if stats == self._last and not self._has_changed():
            return
        positions = [one.current() for one in self._tracks]
        decision = decide(look.found, positions, self._since - _CLOCKS_DIFFER, int(now * 1e9))
        self._last = None if decision.waits else stats
        inodes = {one.inode for one in look.found}
        tracks = [self._missing(self._tracks[index], inodes, now) for index in decision.missing]
        for track in [one for one in tracks if now - one.current().seen >= FORGET_SECONDS]:
            self._close(track)
            tracks.remove(track)
        for choice in decision.choices:
            tracks.append(self._track(choice, now))
        self._tracks = tracks

    def turn(self, count: int, now: float, *, final: bool) -> bool:
        """Read up to ``count`` records of each file; return whether there may be more."""
        if self._has_changed():
            self.look(now)
        busy = False
        opened = sum(track.reader is not None and track.reader.is_open for track in self._tracks)
        for track in self._tracks:
            if (reader := track.reader) is None:
                continue
            if opened >= MOST_OPEN and not reader.is_open and not reader.rests(final=final):
                busy = True  # `advance` closes those at their ends
                continue
            opened -= reader.is_open
            before = reader.lines
            more = reader.turn(count, now, final=final)
            busy |= more
            opened += reader.is_open
            self._show_lag(track, reader, now)  # Kafka may be away for long now
            metrics.LINES.labels(self._name).inc(max(0, reader.lines - before))
            if reader.problem and not track.missing:
                self.problems[reader.found.path] = reader.problem
            if reader.catching_up and not track.missing and (more or not final):
                break  # the adapter must know the records of this file before those of the next
        return busy or self._has_changed()

    def advance(self, now: float) -> bool:
        """Move the positions, as everything read is acknowledged; return whether one moved."""
        moved = False
        at_end = []
        for track in self._tracks:
            if (reader := track.reader) is None:
                continue
            moved |= reader.advance()
            self._show_lag(track, reader, now)
            if reader.is_open and reader.at_end:
                at_end.append(reader)
        if len(at_end) > MOST_OPEN // 2:
            at_end.sort(key=lambda reader: reader.found.modified)
            for reader in at_end[: -MOST_OPEN // 2]:
                reader.close()
        return moved

    def positions(self) -> list[FilePosition]:
        """Return the positions to keep."""
        return [track.current() for track in self._tracks]

    def close(self) -> None:
        """Close all files."""
        for track in self._tracks:
            self._close(track)

    def _has_changed(self) -> bool:
        """Whether a file has other content than at the last look."""
        return any(track.reader is not None and track.reader.changed for track in self._tracks)

    def _track(self, choice: Choice, now: float) -> _Track:
        """Return the track of a file, with a reader."""
        found = choice.found
        old = self._tracks[choice.position] if choice.position is not None else None
        if choice.origin is Origin.SAME and old is not None and old.reader is not None and old.reader.reads(found):
            if old.reader.found.path != found.path:
                log.info("renamed", tool=self._name, file=old.reader.found.path, to=found.path)
                self._forget_lag(old)
            old.missing = False
            old.reader.seen(found, now)
            return old
        if old is None:
            position = FilePosition(found.path, found.inode, encoded=found.encoded)
            known = any(one.current().inode == found.inode for one in self._tracks)
            log.info("truncated" if known else "new_file", tool=self._name, file=found.path, size=found.size)
        else:
            position = replace(
                old.current(), path=found.path, inode=found.inode, encoded=found.encoded,
                whole=old.current().whole if choice.origin is Origin.SAME else None,
            )  # fmt: skip
            if choice.origin is Origin.COPY:
                log.info("copied", tool=self._name, file=old.current().path, to=found.path, offset=position.offset)
        if old is not None:
            self._close(old)
        kind: Callable[..., FileReader] = EncodedFile if found.encoded else GrowingFile
        remember = self._remember and old is not None and old.cold
        reader = kind(found, position, self._envelopes, self._take, remember=remember)
        reader.seen(found, now)
        return _Track(position, reader)

    def _missing(self, track: _Track, inodes: set[int], now: float) -> _Track:
        """Note that no file has the content of a position. If its file was removed, it is still read to its end."""
        if not track.missing and track.reader is not None:
            track.reader.seen(track.reader.found, now)  # a look without any change does not note this
        position = track.current()
        if not track.missing:
            log.info("gone", tool=self._name, file=position.path, acknowledged=position.offset)
        track.missing = True
        if position.inode in inodes or (track.reader is not None and track.reader.changed):
            self._close(track)
            track.position, track.reader = replace(position, inode=0), None
        return track

    def _close(self, track: _Track) -> None:
        if track.reader is not None:
            track.reader.close()
            self._forget_lag(track)

    def _show_lag(self, track: _Track, reader: FileReader, now: float) -> None:
        lag = reader.lag()
        track.behind_since = None if not lag else track.behind_since or now
        path = printable(reader.found.path)
        metrics.LAG_BYTES.labels(self._name, path).set(lag)
        if track.shown != path:
            metrics.LAG_SECONDS.labels(self._name, path).set_function(track.seconds_behind)
            track.shown = path

    def _forget_lag(self, track: _Track) -> None:
        path, track.shown = track.shown, ""
        for gauge in (metrics.LAG_BYTES, metrics.LAG_SECONDS):
            with suppress(KeyError):
                gauge.remove(self._name, path)
