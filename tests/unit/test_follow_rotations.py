"""Real files that are written, rotated in every way, and followed by a process that is killed: nothing is lost."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from support.examples import few
from support.following import Follow


def in_one_line(name: str) -> bytes:
    record = {"event": "session.start", "code": "T2000I", "uid": name, "sid": name, "user": "alice", "pad": "x" * 300}
    return json.dumps({**record, "time": "2024-05-01T10:00:00Z"}).encode() + b"\n"


def in_parts(name: str) -> bytes:
    """As a container runtime splits a long line."""
    whole = in_one_line(name)
    prefix = b"2026-11-28T05:00:00.1Z stdout "
    return prefix + b"P " + whole[:100] + b"\n" + prefix + b"F " + whole[100:]


def in_many_lines(name: str) -> bytes:
    return json.dumps(json.loads(in_one_line(name)), indent=1).encode() + b"\n"


class World:
    """A folder with ``audit.log``, and a process that follows it."""

    def __init__(self, folder: Path, form: Callable[[str], bytes], pattern: str) -> None:
        self.log = folder / "audit.log"
        self.written: list[str] = []
        self._form = form
        self._rest = b""
        self._rotations = 0
        self.follow = Follow(folder.parent, str(folder / pattern))
        self.follow.now = time.time()
        self.follow.step()

    def write(self) -> None:
        self.end_line()
        for _ in range(3):
            self._append(self._record())

    def begin_line(self) -> None:
        if not self._rest:
            record = self._record()
            self._append(record[:150])
            self._rest = record[150:]

    def end_line(self) -> None:
        if self._rest:
            self._append(self._rest)
            self._rest = b""

    def rename(self) -> None:
        self.end_line()
        if self.log.exists():
            self.log.rename(self._rotated())

    def copy_and_truncate(self) -> None:
        self._copy_and_truncate(lambda: None)

    def copy_look_and_truncate(self) -> None:
        self._copy_and_truncate(self.look)

    def gzip(self) -> None:
        self._compress(".gz", gzip.compress, lambda: None)

    def zstd(self) -> None:
        self._compress(".zst", zstd.compress, lambda: None)

    def gzip_while_it_looks(self) -> None:
        self._compress(".gz", gzip.compress, self.look)

    def look(self) -> None:
        self.follow.step()

    def kill(self) -> None:
        self.follow.restart()

    def kill_before_the_positions_are_written(self) -> None:
        self.follow.step(write=False)
        self.follow.restart()

    def _copy_and_truncate(self, between: Callable[[], None]) -> None:
        self.end_line()
        if self.log.exists():
            shutil.copy(self.log, self._rotated())
            between()
            os.truncate(self.log, 0)

    def _compress(self, ending: str, how: Callable[[bytes], bytes], between: Callable[[], None]) -> None:
        for path in sorted(self.log.parent.glob("audit.log.???"))[:1]:
            content, compressed = how(path.read_bytes()), path.with_name(path.name + ending)
            for size in (1, len(content) // 2, len(content)):
                compressed.write_bytes(content[:size])
                between()
            shutil.copystat(path, compressed)
            path.unlink()

    def _record(self) -> bytes:
        self.written.append(f"s{len(self.written)}")
        return self._form(self.written[-1])

    def _append(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)

    def _rotated(self) -> Path:
        self._rotations += 1
        return self.log.with_name(f"audit.log.{self._rotations:03}")


STEPS = st.lists(
    st.sampled_from([name for name in vars(World) if not name.startswith("_")] + ["write", "look"] * 3), max_size=20
)


@few(30)
@pytest.mark.parametrize("form", (in_one_line, in_parts, in_many_lines))
@given(steps=STEPS, pattern=st.sampled_from(["audit.log", "*.log", "audit*"]))
def test_every_record_is_sent_and_none_again_after_the_last(
    form: Callable[[str], bytes], steps: list[str], pattern: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (logs := Path(folder, "logs")).mkdir()
        world = World(logs, form, pattern)
        for step in steps:
            getattr(world, step)()
        world.end_line()
        world.look()
        assert set(world.follow.kafka.sessions()) == set(world.written)
        world.follow.kafka.events.clear()
        world.kill()
        world.look()
        assert world.follow.kafka.sessions() == []
        world.follow.kill()
