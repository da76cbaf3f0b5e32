"""What is read after a rotation, in a model of a folder: every line once, whatever happens between two looks."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.producers.follow.decisions import COMPRESSING_NANOSECONDS, Found, Origin, ReadingPlan, decide
from grantledger.producers.follow.position import SAMPLE_BYTES, FilePosition, digests_at
from grantledger.producers.follow.rotated_names import is_alike, originals


@dataclasses.dataclass
class File:
    inode: int
    content: bytes
    modified: int
    encoded: bool = False


class World:
    """A folder with ``audit.log`` and its rotated files, and a follower of it."""

    def __init__(self, line_bytes: int) -> None:
        self.files: dict[str, File] = {}
        self.positions: list[FilePosition] = []
        self.written: list[bytes] = []
        self.read: list[bytes] = []
        self.decision = ReadingPlan((), ())
        self._line_bytes = line_bytes
        self._clock = 0
        self._inodes = 0
        self._open_line = b""
        self.look()

    def write(self, lines: int) -> None:
        self.end_line()
        for _ in range(lines):
            self._append(self._line() + b"\n")

    def begin_line(self) -> None:
        if not self._open_line:
            self._open_line = self._line()
            self._append(self._open_line[:3])

    def end_line(self) -> None:
        """The rest of an open line goes to the file that has its beginning."""
        if self._open_line:
            name = next(name for name, one in self.files.items() if one.content.endswith(self._open_line[:3]))
            self._append(self._open_line[3:] + b"\n", name)
            self._open_line = b""

    def rename(self) -> None:
        if "audit.log" in self.files:
            self._shift()
            self.files["audit.log.1"] = self.files.pop("audit.log")

    def copy(self) -> None:
        self.end_line()
        if "audit.log" in self.files:
            self._shift()
            self.files["audit.log.1"] = self._new(self.files["audit.log"].content)

    def truncate(self) -> None:
        """Truncate what was copied, as logrotate does right after the copy."""
        file, copy = self.files.get("audit.log"), self.files.get("audit.log.1")
        if file and copy and file.content == copy.content and not copy.encoded:
            file.content, file.modified = b"", self._tick()

    def copy_look_truncate(self) -> None:
        self.copy()
        self.look()
        self.truncate()

    def compress(self) -> None:
        self.end_line()
        plain = [name for name, one in self.files.items() if name != "audit.log" and not one.encoded]
        if plain:
            name = max(plain, key=lambda one: int(one.rpartition(".")[2]))
            old = self.files.pop(name)
            self.files[name + ".gz"] = dataclasses.replace(self._new(old.content), encoded=True, modified=old.modified)

    def look(self, later: int = 0) -> None:
        found = [self._found(name, one) for name, one in self.files.items()]
        self.decision = decide(found, self.positions, since=0, now=self._clock + later)
        kept = []
        inodes = {one.inode for one in found}
        for index in self.decision.missing:
            position = self.positions[index]
            kept.append(dataclasses.replace(position, inode=0) if position.inode in inodes else position)
        for choice in self.decision.choices:
            old = self.positions[choice.position] if choice.position is not None else None
            file = self.files[choice.found.path]
            start = old.offset if old is not None else 0
            end = len(file.content) if file.encoded else file.content.rfind(b"\n") + 1
            end = max(start, end)
            self.read += file.content[start:end].splitlines()
            head, tail = digests_at(end, lambda at, length, file=file: file.content[at : at + length])
            whole = (choice.found.size, choice.found.modified) if file.encoded else None
            kept.append(
                FilePosition(
                    choice.found.path, file.inode, end, head=head, tail=tail, encoded=file.encoded, whole=whole
                )
            )
        self.positions = kept

    def _line(self) -> bytes:
        line = f"{len(self.written):05}".ljust(self._line_bytes, "x").encode()
        self.written.append(line)
        return line

    def _append(self, data: bytes, name: str = "audit.log") -> None:
        file = self.files.setdefault(name, self._new(b""))
        file.content += data
        file.modified = self._tick()

    def _shift(self) -> None:
        numbered = [(name, int(name.removesuffix(".gz").rpartition(".")[2])) for name in self.files if name[-1] != "g"]
        for name, number in sorted(numbered, key=lambda one: -one[1]):
            self.files[name.replace(str(number), str(number + 1), 1)] = self.files.pop(name)

    def _new(self, content: bytes) -> File:
        self._inodes += 1
        return File(self._inodes, content, self._tick())

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _found(self, name: str, file: File) -> Found:
        def sample(start: int, length: int) -> bytes:
            return file.content[start : start + length] if not file.encoded or start == 0 else b""

        size = len(file.content) // (3 if file.encoded else 1)
        return Found(
            name,
            file.inode,
            size,
            file.modified,
            file.modified,
            name == "audit.log",
            name != "audit.log",
            file.encoded,
            sample,
        )


def steps(*names: str) -> st.SearchStrategy[list[tuple[str, int | None]]]:
    others = ("begin_line", "end_line", "rename", "compress", "look", *names)
    writing = st.integers(1, 4).map(lambda lines: ("write", lines))
    return st.lists(st.one_of(writing, st.sampled_from(others).map(lambda name: (name, None))), max_size=25)


@given(steps("copy", "truncate"), st.sampled_from([6, 3_000]))
def test_every_complete_line_is_read_whatever_happens_between_two_looks(
    done: list[tuple[str, int | None]], line_bytes: int
) -> None:
    world = World(line_bytes)
    for name, argument in done:
        getattr(world, name)(*([] if argument is None else [argument]))
        assert not [line for line in world.read if len(line) != line_bytes], "from a line without its end"
    world.end_line()
    world.look(COMPRESSING_NANOSECONDS)
    assert set(world.read) == set(world.written)
    before = len(world.read)
    world.look(COMPRESSING_NANOSECONDS)
    assert len(world.read) == before, "nothing changed, and something was read again"


@given(steps("copy_look_truncate"), st.sampled_from([6, 3_000]))
def test_a_look_after_each_step_reads_each_line_once(done: list[tuple[str, int | None]], line_bytes: int) -> None:
    """Also between a copy and its truncation."""
    world = World(line_bytes)
    for name, argument in done:
        getattr(world, name)(*([] if argument is None else [argument]))
        world.look()
    world.end_line()
    world.look()
    assert world.read == world.written


def found(path: str, inode: int, content: bytes, *, named: bool = True, modified: int = 1) -> Found:
    def sample(start: int, length: int) -> bytes:
        return content[start : start + length]

    return Found(path, inode, len(content), modified, modified, named, not named, False, sample)


def position(content: bytes, inode: int) -> FilePosition:
    head, tail = digests_at(len(content), lambda start, length: content[start : start + length])
    return FilePosition("a.log", inode, len(content), head=head, tail=tail)


def test_old_rotated_files_are_not_read_at_the_first_start() -> None:
    files = [found("a.log", 1, b"x\n", modified=9), found("a.log.1", 2, b"y\n", named=False, modified=3)]
    assert [one.found.path for one in decide(files, [], since=5, now=10).choices] == ["a.log"]
    assert [one.found.path for one in decide(files, [], since=2, now=10).choices] == ["a.log.1", "a.log"]


def test_an_inode_with_other_content_is_another_file() -> None:
    for content in (b"other\nlines\n", b"so"):
        decision = decide([found("a.log", 1, content)], [position(b"some\n", 1)], since=0, now=10)
        assert [(one.origin, one.position) for one in decision.choices] == [(Origin.NEW, None)]
        assert decision.missing == (0,)


def test_two_names_of_one_file_are_one_file() -> None:
    files = [found("link.log", 1, b"x\n", named=False), found("a.log", 1, b"x\n")]
    assert [one.found.path for one in decide(files, [], since=0, now=10).choices] == ["a.log"]


def test_named_files_with_the_same_beginning_are_all_read() -> None:
    files = [found("a.log", 1, b"same\nmore\n"), found("b.log", 2, b"same\n")]
    decision = decide(files, [position(b"same\n", 1)], since=0, now=10)
    assert {(one.found.path, one.origin) for one in decision.choices} == {
        ("a.log", Origin.SAME),
        ("b.log", Origin.NEW),
    }


@pytest.mark.parametrize("change", (b"X" + b"a" * 9_999, b"a" * 9_999 + b"X"), ids=("beginning", "end"))
def test_a_position_compares_beginning_and_end(change: bytes) -> None:
    one = position(b"a" * 10_000, 1)
    assert one.is_in(lambda start, length: (b"a" * 20_000)[start : start + length])
    assert not one.is_in(lambda start, length: change[start : start + length])
    assert SAMPLE_BYTES < 9_999


ROTATED = (
    "audit.log.1", "audit.log.2.gz", "audit.log-20261128", "audit.log-20261128.zst", "audit.log.old", "audit.log~",
    "audit-2026-11-28T05-00-00.000.log", "audit-2026-11-28T05-00-00.000.log.gz", "audit.1.log", "audit.log.gz",
    "audit.log.20261128-050000",
)  # fmt: skip
OTHERS = ("audit.log", "audit.log.tmp", "audit.log.lock", "audit-2.log", "audit-eu.log", "other.log.1", "audit.logs.1")


def test_names_of_rotated_files() -> None:
    assert [name for name in ROTATED if "audit.log" not in originals(name)] == []
    assert [name for name in OTHERS if "audit.log" in originals(name)] == []
    assert list(originals("audit.1")) == ["audit"]
    assert list(originals("0.log.20261128-050000.gz")) == ["0.log.20261128-050000", "0.log"]
    assert is_alike("2026-11-28.00:00:00.log", "2026-11-29.00:00:00.log")
    assert not is_alike("a.1.log", "b.2.log")
