from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from prometheus_client import generate_latest

from grantledger.producers.follow.followed_files import FORGET_SECONDS
from support.following import Follow, run_once


def line(name: str) -> bytes:
    record = {"event": "session.start", "code": "T2000I", "uid": name, "sid": name, "user": "alice"}
    return json.dumps({**record, "time": "2024-05-01T10:00:00Z"}).encode() + b"\n"


def append(path: Path, *names: str) -> None:
    with path.open("ab") as file:
        file.write(b"".join(map(line, names)))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder / "audit.log"


def test_lines_are_sent_as_they_come_and_once(tmp_path: Path, log: Path) -> None:
    follow = Follow(tmp_path, str(log))
    follow.step()
    assert follow.follower.problems == [f"{log}: there is no such file yet"]
    append(log, "a", "b")
    follow.step()
    assert follow.taken() == ["a", "b"]
    append(log, "c")
    follow.step()
    assert follow.taken() == ["c"]
    follow.restart()
    follow.step()
    assert follow.taken() == []
    append(log, "d")
    follow.step()
    assert follow.taken() == ["d"]


def test_a_partial_line_waits_for_its_end(tmp_path: Path, log: Path) -> None:
    whole = line("a")
    follow = Follow(tmp_path, str(log))
    for size in range(len(whole)):
        log.write_bytes(whole[:size])
        follow.step()
        assert follow.taken() == []
    log.write_bytes(whole)
    follow.step()
    assert follow.taken() == ["a"]


def rename(log: Path) -> None:
    log.rename(log.with_name("audit.log.1"))


def rename_and_create(log: Path) -> None:
    rename(log)
    append(log, "new")


def compress(path: Path, to: str, how: Callable[[bytes], bytes] = gzip.compress) -> None:
    """Compress a file as gzip and zstd do: with its time, and without the original."""
    compressed = path.with_name(to)
    compressed.write_bytes(how(path.read_bytes()))
    shutil.copystat(path, compressed)
    path.unlink()


def gzipped(log: Path) -> None:
    compress(log, "audit.log.1.gz")
    append(log, "new")


def zstandard(log: Path) -> None:
    compress(log, "audit-2026-11-29T10-00-00.000.log.zst", zstd.compress)


def copy_and_truncate(log: Path) -> None:
    shutil.copy(log, log.with_name("audit.log-20261129"))
    os.truncate(log, 0)
    append(log, "new")


def copy_and_write_more(log: Path) -> None:
    shutil.copy(log, log.with_name("audit.log.1"))
    os.truncate(log, 0)
    append(log, *(f"new{number}" for number in range(200)))


def rotate_twice(log: Path) -> None:
    rename(log)
    append(log, "second")
    compress(log.with_name("audit.log.1"), "audit.log.2.gz")
    rename(log)
    append(log, "new")


ROTATIONS = (rename, rename_and_create, gzipped, zstandard, copy_and_truncate, copy_and_write_more, rotate_twice)


@pytest.mark.parametrize("down", (True, False), ids=("down", "up"))
@pytest.mark.parametrize("rotate", ROTATIONS)
def test_nothing_is_lost_by_a_rotation(tmp_path: Path, log: Path, rotate: Callable[[Path], None], down: bool) -> None:
    append(log, "a", "b")
    follow = Follow(tmp_path, str(log))
    follow.step()
    assert follow.taken() == ["a", "b"]
    append(log, "late")
    if down:
        follow.kill()
    rotate(log)
    if down:
        follow.start()
    follow.step()
    found = follow.taken()
    expected = ["late"]
    expected += ["second"] if rotate is rotate_twice else []
    expected += ["new"] if log.exists() and rotate is not copy_and_write_more else []
    expected += [f"new{number}" for number in range(200)] if rotate is copy_and_write_more else []
    assert found == expected
    append(log, "after")
    follow.step()
    assert follow.taken() == ["after"]
    follow.restart()
    follow.step()
    assert follow.taken() == []


def test_a_removed_file_is_read_to_its_end(tmp_path: Path, log: Path) -> None:
    append(log, "a")
    follow = Follow(tmp_path, str(log))
    follow.step()
    append(log, "late")
    log.unlink()
    append(log, "new")
    follow.step()
    assert follow.taken() == ["a", "late", "new"]


def test_a_writer_may_keep_writing_to_a_renamed_file(tmp_path: Path, log: Path) -> None:
    append(log, "a")
    follow = Follow(tmp_path, str(log))
    with log.open("ab") as writer:
        rename(log)
        append(log, "new")
        follow.step()
        writer.write(line("late"))
        writer.flush()
        follow.step()
    assert follow.taken() == ["a", "new", "late"]


def test_patterns_and_folders_find_new_files(tmp_path: Path) -> None:
    for name in ("one", "two/three"):
        (tmp_path / "pods" / name).mkdir(parents=True)
    follow = Follow(tmp_path, str(tmp_path / "pods" / "**" / "*.log"))
    append(tmp_path / "pods" / "one" / "0.log", "a")
    follow.step()
    append(tmp_path / "pods" / "two" / "three" / "0.log", "b")
    append(tmp_path / "pods" / "two" / "three" / "0.txt", "not matched")
    follow.step()
    assert follow.taken() == ["a", "b"]
    whole = Follow(tmp_path / "pods" / "one", str(tmp_path / "pods" / "two"))
    append(tmp_path / "pods" / "two" / ".hidden", "hidden")
    whole.step()
    assert sorted(whole.taken()) == ["b", "not matched"]


def test_a_link_to_the_file_of_the_day(tmp_path: Path, log: Path) -> None:
    """As Teleport writes: the link changes at midnight, also while this process is down."""
    days = [log.with_name(f"2026-11-2{day}.00:00:00.log") for day in (7, 8, 9)]
    append(days[0], "a")
    log.symlink_to(days[0])
    follow = Follow(tmp_path, str(log))
    follow.step()
    append(days[0], "late")
    follow.kill()
    for number, day in enumerate(days[1:]):
        append(day, f"day{number}")
        log.unlink()
        log.symlink_to(day)
    follow.start()
    follow.step()
    assert follow.taken() == ["a", "late", "day0", "day1"]


def test_what_was_rotated_before_the_first_start_is_left_to_import(tmp_path: Path, log: Path) -> None:
    append(log.with_name("audit.log.1"), "old")
    os.utime(log.with_name("audit.log.1"), (1_000_000, 1_000_000))
    append(log, "a")
    follow = Follow(tmp_path, str(log))
    follow.step()
    follow.restart()
    follow.step()
    assert follow.taken() == ["a"]


def test_a_file_that_is_being_compressed_waits(tmp_path: Path, log: Path) -> None:
    append(log, *(f"s{number}" for number in range(500)))
    follow = Follow(tmp_path, str(log))
    follow.now = log.stat().st_ctime
    follow.step()
    append(log, "late")
    rename(log)
    rotated, compressed = log.with_name("audit.log.1"), log.with_name("audit.log.1.gz")
    content = gzip.compress(rotated.read_bytes())
    follow.step()
    for size in (10, len(content) // 2, len(content)):
        compressed.write_bytes(content[:size])
        follow.step()
    rotated.unlink()
    follow.step()
    assert follow.taken() == [*(f"s{number}" for number in range(500)), "late"]
    follow.restart()
    follow.step()
    assert follow.taken() == []


def test_compressed_files_that_arrive_are_read_when_they_are_whole(tmp_path: Path, log: Path) -> None:
    follow = Follow(tmp_path, str(log.parent / "*.gz"), tool="hoop")
    events = [
        {"event_type": "session.started", "payload": {"session_id": f"s{n}", "user": "a@b.example"}} for n in (1, 2)
    ]
    for event in events:
        event["payload"]["occurred_at"] = "2026-01-01T00:00:00Z"  # type: ignore[index]
    content = gzip.compress(b"\n".join(json.dumps(event).encode() for event in events))
    path = log.with_name("a.json.gz")
    path.write_bytes(content[:-9])
    follow.step()
    assert follow.follower.problems == []
    path.write_bytes(content)
    follow.step()
    assert set(follow.taken()) == {"s1", "s2"}
    follow.restart()
    follow.step()
    assert follow.taken() == []


def test_a_copy_that_a_pattern_matches_is_not_sent_again(tmp_path: Path, log: Path) -> None:
    append(log, "a", "b")
    follow = Follow(tmp_path, str(log) + "*")
    follow.step()
    append(log, "late")
    shutil.copy(log, log.with_name("audit.log.1"))
    follow.step()
    os.truncate(log, 0)
    append(log, "new")
    follow.step()
    assert follow.taken() == ["a", "b", "late", "new"]


def test_a_damaged_file_is_one_sentence_and_the_others_go_on(tmp_path: Path, log: Path) -> None:
    log.with_name("bad.log.gz").write_bytes(gzip.compress(line("x"))[:-9])
    append(log, "a")
    (log.parent / "plain").touch()
    follow = Follow(tmp_path, str(log.with_name("bad.log.gz")), str(log.parent / "plain" / "no"), "/dev/null", str(log))
    follow.step()
    follow.step(seconds=11)
    append(log, "b")
    follow.step()
    assert follow.taken() == ["x", "a", "b"]
    assert sorted(problem.split(": ", 1)[1] for problem in follow.follower.problems) == [
        "cannot be read (Not a directory)",
        "damaged; reading stopped (Compressed file ended before the end-of-stream marker was reached)",
        "is no regular file",
    ]


def test_a_list_that_does_not_end_is_taken_for_a_damaged_line(tmp_path: Path, log: Path) -> None:
    log.write_bytes(b"[{worker\n" + line("a"))
    follow = Follow(tmp_path, str(log))
    follow.step()
    assert follow.taken() == []
    follow.step(seconds=11)
    assert follow.taken() == ["a"]


def test_parts_of_a_line_are_joined_across_a_restart(tmp_path: Path, log: Path) -> None:
    whole = line("a").decode().strip()
    first, rest = whole[:30], whole[30:]
    log.write_text(f"2026-11-28T05:00:00.1Z stdout P {first}\n")
    follow = Follow(tmp_path, str(log))
    follow.step()
    follow.restart()
    follow.step()
    with log.open("a") as file:
        file.write(f"2026-11-28T05:00:00.1Z stdout F {rest}\n")
    follow.step()
    assert follow.taken() == ["a"]


def test_a_long_line_is_refused_and_the_next_is_read(tmp_path: Path, log: Path) -> None:
    log.write_bytes(b"x" * 3_000_000)
    follow = Follow(tmp_path, str(log))
    follow.step()
    assert follow.follower.state().positions[0].in_line
    follow.restart()
    append(log, "rest")
    append(log, "a")
    follow.step()
    assert follow.taken() == ["a"]


def test_other_content_of_the_same_size_is_read_from_its_beginning(tmp_path: Path, log: Path) -> None:
    append(log, "a", "b")
    follow = Follow(tmp_path, str(log))
    follow.step()
    log.write_bytes(line("c") + line("d"))
    follow.step()
    assert follow.taken() == ["a", "b", "c", "d"]


def test_what_kafka_has_not_acknowledged_is_read_again(tmp_path: Path, log: Path) -> None:
    append(log, "a", "b")
    follow = Follow(tmp_path, str(log))
    follow.step()
    append(log, "c")
    follow.step(write=False)
    first = follow.kafka.ids
    follow.kafka.events.clear()
    follow.restart()
    follow.step()
    assert follow.kafka.ids == first[2:]


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_are_open_at_one_time(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.producers.follow.followed_files.MOST_OPEN", 4)
    names = [f"s{number}" for number in range(20)]
    for name in names:
        append(log.with_name(f"{name}.log"), name)
    before = open_files()
    follow = Follow(tmp_path, str(log.parent))
    for round_number in range(2):
        for _ in range(20):
            follow.step()
            assert open_files() - before <= 4
        assert sorted(follow.taken()) == sorted(names), round_number
        for name in names:
            append(log.with_name(f"{name}.log"), name)
    follow.restart()
    for _ in range(20):
        follow.step()
    assert sorted(follow.taken()) == sorted(names)
    kafka, _ = run_once(tmp_path, str(log.parent))
    assert sorted(kafka.sessions()) == sorted(names * 3)


def test_the_time_of_the_first_look_is_kept_without_any_record(tmp_path: Path, log: Path) -> None:
    """Lines that are written and rotated away before the second start are after the first look."""
    log.touch()
    run_once(tmp_path, str(log))
    append(log, "a")
    gzipped(log)
    kafka, _ = run_once(tmp_path, str(log))
    assert kafka.sessions() == ["a", "new"]


def test_names_of_any_bytes(tmp_path: Path, log: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(log) + b"\xff"))
    append(odd, "a")
    follow = Follow(tmp_path, str(log.parent), str(log.with_name("x" * 300)))
    follow.step()
    follow.restart()
    append(odd, "b")
    follow.step()
    assert follow.taken() == ["a", "b"]
    assert [problem[-30:] for problem in follow.follower.problems] == ["cannot be read (File name too long)"[-30:]]
    assert b"audit.log\\\\udcff" in generate_latest()


def test_a_file_that_was_idle_for_long_is_still_read_to_its_end(tmp_path: Path, log: Path) -> None:
    append(log, "a")
    follow = Follow(tmp_path, str(log))
    follow.step()
    follow.now += FORGET_SECONDS * 2
    append(log, "late")
    log.unlink()
    follow.step()
    assert follow.taken() == ["a", "late"]
    assert len(follow.follower.state().positions) == 1
    follow.now += FORGET_SECONDS * 2
    append(log, "new")
    follow.step()
    assert follow.taken() == ["new"]
    assert [one.path for one in follow.follower.state().positions] == [str(log)]
