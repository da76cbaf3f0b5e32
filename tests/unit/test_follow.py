"""Follow as a whole: the road of import, state, journald, pipes, configuration."""

from __future__ import annotations

import gzip
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from grantledger.base.toml import ConfigError
from grantledger.producers.adapters import make_adapter
from grantledger.producers.client import ClientError
from grantledger.producers.follow.config import FollowedTool, load_follow_config
from grantledger.producers.follow.follower import Follower
from grantledger.producers.follow.sender import EventSender, InterruptedWaitError
from grantledger.producers.follow.state_file import StateError, StateFile, ToolState
from grantledger.producers.follow.streams import StreamReader
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile, files_in
from grantledger.schemas.event import Event
from support.command import invoke
from support.events import event
from support.following import Follow, Kafka, run_once
from support.waiting import wait_for

from .test_adapter_cases import certificate, lease, teleport, token, vault


def imported(tool: str, *names: str) -> list[Event]:
    events: list[Event] = []
    importer = Importer(make_adapter(tool), events.append)
    for file in map(InputFile, files_in(names)):
        with file:
            importer.run(file)
    return events


def ids(events: list[Event]) -> list[str]:
    return [event.event_id for event in events]


RECORD = b'{"event":"session.start","code":"T2000I","uid":"a","time":"2024-05-01T10:00:00Z","sid":"a"}'
TOOLS = {"cloudtrail": "aws_cloudtrail", **{tool: tool for tool in ("hoop", "okta", "sudo", "teleport", "vault")}}


@pytest.mark.parametrize("tool", TOOLS)
def test_import_and_follow_give_the_same_ids(tool: str, samples: Path, tmp_path: Path) -> None:
    folder = samples / TOOLS[tool]
    names = [str(path) for path in sorted(folder.glob("*.*"))]
    kafka, _ = run_once(tmp_path, *names, tool=tool)
    assert kafka.ids == ids(imported(tool, *names))
    assert kafka.ids
    again, _ = run_once(tmp_path, *names, tool=tool)
    assert again.ids == []


MEMORIES = {
    "teleport": (
        certificate(1, "r1"),
        teleport(2, "lock.created", "TLK00I", name="l1", user="admin", target={"user": "alice"}),
        teleport(3, "lock.deleted", "TLK01I", name="l1", user="admin"),
    ),
    "vault": (
        vault(1, "auth/oidc/oidc/callback", response=token("parent")),
        vault(2, "database/creds/ro", operation="read", response=lease("l1")),
        vault(3, "auth/token/revoke-self"),
    ),
}


@pytest.mark.parametrize("rotated", (False, True), ids=("grows", "rotated"))
@pytest.mark.parametrize("tool", MEMORIES)
def test_what_an_adapter_remembers_is_known_again_after_a_restart(tool: str, rotated: bool, tmp_path: Path) -> None:
    """The revocation of a Vault token names no lease, and the end of a Teleport lock names only the lock."""
    log, expected = tmp_path / "audit.log", tmp_path / "expected"
    follow = Follow(tmp_path, str(log), tool=tool)
    for number, record in enumerate(MEMORIES[tool]):
        if rotated and number == 1:
            (tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(log.read_bytes()))
            log.unlink()
        elif rotated and number == 2:
            log.rename(tmp_path / "audit.log.0")
        for path in (log, expected):
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        follow.restart()
        follow.step()
    assert follow.kafka.ids == ids(imported(tool, str(expected)))
    alone = tmp_path / "alone"
    alone.write_text(json.dumps(MEMORIES[tool][-1]))
    assert not set(ids(imported(tool, str(alone)))) >= set(follow.kafka.ids[-1:]), "the last event needs a memory"


def test_a_last_line_without_its_end_is_complete_only_with_once(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(RECORD)
    follow = Follow(tmp_path, str(log))
    follow.step()
    assert follow.taken() == []
    kafka, _ = run_once(tmp_path / "once", str(log))
    assert kafka.sessions() == ["a"]
    again, _ = run_once(tmp_path / "once", str(log))
    assert again.sessions() == []


def test_the_report_of_once_names_what_was_not_understood(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text('nonsense\nother nonsense\n{"type": "request", "request": {}}\n')
    _, follower = run_once(tmp_path, str(log), str(tmp_path / "missing"))
    report = follower.report()
    assert (report.failed, [(str(one.location), one.count) for one in report.failures]) == (3, [(f"{log}:1", 2)])
    assert report.of_other_tools == {(str(log), "vault"): 1}
    assert follower.problems() == [f"{tmp_path / 'missing'}: there is no such file yet"]


def test_the_state_is_private_and_whole(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "new" / "positions.json")
    with state.locked():
        state.write({"vault": ToolState(since=1, cursors={"unit": "s=1"})})
        (tmp_path / "new" / "positions.json.new").write_text("left by a kill")
        state.write({"vault": ToolState(since=2)})
    assert state.read() == {"vault": ToolState(since=2)}
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "tools": {}}', '{"version": 1, "tools": {"a": {}}}', "\xff"]
)
def test_a_damaged_state_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "positions.json"
    path.write_text(content, "latin-1")
    with pytest.raises(StateError, match=r"positions\.json: not a file of positions .* Move it away"):
        StateFile(path).read()


def test_two_followers_of_one_state_are_refused(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "positions.json")
    with state.locked(), pytest.raises(StateError, match="another process"), StateFile(state.path).locked():
        pass


def test_positions_are_written_after_the_acknowledgement_only(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(RECORD + b"\n")
    kafka, written = Kafka(), []
    kafka.away = True

    def wait() -> None:
        written.append((tmp_path / "positions.json").exists())
        kafka.away = len(written) < 4

    kafka.on_wait = wait
    run_once(tmp_path, str(log), kafka=kafka)
    assert written == [False] * 4
    assert (tmp_path / "positions.json").exists()


def test_what_was_written_before_a_stop_is_sent(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(RECORD + b"\n")
    kafka = Kafka()
    follower = Follower(
        [FollowedTool(tool="teleport", files=(str(log),))],
        StateFile(tmp_path / "positions.json"),
        lambda _tool: kafka,  # type: ignore[arg-type,return-value]
    )

    def last_line() -> None:
        if len(kafka.events) == 1:
            with log.open("ab") as file:
                file.write(RECORD.replace(b'"a"', b'"b"') + b"\n")
            follower.stop()

    kafka.on_wait = last_line
    follower.run()
    assert kafka.sessions() == ["a", "b"]
    assert StateFile(tmp_path / "positions.json").read()["teleport"].positions[0].lines == 2


def test_reading_stops_while_kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.producers.follow.sender.MOST_EVENTS", 3)
    kafka, waits = Kafka(), []
    kafka.away = True

    def wait() -> None:
        waits.append(len(kafka.events))
        kafka.away = len(waits) < 5

    kafka.on_wait = wait
    sender = EventSender(kafka, lambda: False)  # type: ignore[arg-type]
    for _ in range(4):
        sender.send(event("grant.activated", 1))
    assert waits == [3, 3, 3, 3, 3]
    assert kafka.acknowledged == 3


def test_a_wait_for_kafka_ends_at_a_stop_or_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.producers.follow.sender.STOP_SECONDS", -1.0)
    kafka = Kafka()
    kafka.away = True
    stopping = EventSender(kafka, lambda: True)  # type: ignore[arg-type]
    stopping.send(event("grant.activated", 1))
    with pytest.raises(InterruptedWaitError):
        stopping.settle()
    limited = EventSender(kafka, lambda: False, limit=-1.0)  # type: ignore[arg-type]
    limited.send(event("grant.activated", 1))
    with pytest.raises(ClientError, match=r"1 event\(s\) not acknowledged within .* \(last error: away\)"):
        limited.settle()


def test_a_pipe_is_read_as_it_is_written_and_ends(tmp_path: Path) -> None:
    source, sink = os.pipe()
    reader = StreamReader("standard input", source, Importer(make_adapter("teleport"), lambda _event: None).envelopes)
    os.write(sink, RECORD + b"\n{broken\n" + RECORD + b"\n" + RECORD[:20])
    found: list[bytes] = []

    def taken(count: int) -> bool:
        found.extend(record.raw for record in reader.take(100))
        return len(found) >= count

    wait_for(lambda: taken(3), "the complete lines")
    os.write(sink, RECORD[20:])
    os.close(sink)
    wait_for(lambda: taken(4) and reader.ended, "the last line and the end")
    os.close(source)
    assert found == [RECORD, b"{broken", RECORD, RECORD]
    assert reader.problem == ""


def test_a_pipe_is_not_read_further_than_the_queue_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grantledger.producers.follow.streams.QUEUED_RECORDS", 5)
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    reader = StreamReader("standard input", source, Importer(make_adapter("teleport"), lambda _event: None).envelopes)

    def full() -> bool:
        try:
            while True:
                os.write(sink, (RECORD + b"\n") * 100)
        except BlockingIOError:
            return reader.queued == 5

    wait_for(full, "the queue is full")
    wait_for(full, "it stays full, and the pipe, too")
    reader.close()
    os.close(sink)
    reader.join()
    os.close(source)


JOURNALCTL = f"""#!{sys.executable}
import json, os, sys
options = dict(argument.removeprefix("--").partition("=")[::2] for argument in sys.argv[1:])
if options["unit"] == "broken":
    sys.exit("Failed to search journal")
after = int(options.get("after-cursor", "s=0").removeprefix("s="))
for number, message in enumerate(open(os.environ["JOURNAL"]), 1):
    if number > after:
        print(json.dumps({{"__CURSOR": f"s={{number}}", "MESSAGE": message.rstrip()}}))
"""


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The messages of a journal, which a program named ``journalctl`` prints."""
    program, messages = tmp_path / "bin" / "journalctl", tmp_path / "journal"
    program.parent.mkdir()
    program.write_text(JOURNALCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("JOURNAL", str(messages))
    return messages


def test_a_unit_is_read_from_the_cursor_on(journal: Path, tmp_path: Path) -> None:
    def record(name: str) -> str:
        return RECORD.decode().replace('"sid":"a"', f'"sid":"{name}"') + "\n"

    journal.write_text(record("a") + "a line of the program itself\n" + record("b"))
    kafka, follower = run_once(tmp_path, "journald:vault.service")
    assert kafka.sessions() == ["a", "b"]
    assert [failure.location.file for failure in follower.report().failures] == ["journald:vault.service"]
    assert StateFile(tmp_path / "positions.json").read()["teleport"].cursors == {"vault.service": "s=3"}
    with journal.open("a") as file:
        file.write(record("c"))
    again, _ = run_once(tmp_path, "journald:vault.service")
    assert again.sessions() == ["c"]


def test_a_unit_that_cannot_be_read_is_one_sentence(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.log").write_bytes(RECORD + b"\n")
    kafka, follower = run_once(tmp_path, "journald:broken", str(tmp_path / "a.log"))
    assert follower.problems() == ["journald:broken: journalctl ended with 1: Failed to search journal"]
    assert kafka.sessions() == ["a"]
    monkeypatch.setenv("PATH", str(tmp_path))
    _, follower = run_once(tmp_path, "journald:vault")
    assert follower.problems() == ["journald:vault: journalctl cannot be run (No such file or directory)"]


def test_every_error_of_the_configuration_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "follow.toml"
    path.write_text(
        '[[follow]]\ntool = "vualt"\nfiles = []\n\n[[follow]]\ntool = "hoop"\nfile = ["a"]\nfiles = ["journald:"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_follow_config(path)
    lines = str(caught.value).replace(str(path), "F").splitlines()
    assert [line.split(" ")[0] for line in lines] == ["F:2:", "F:3:", "F:7:", "F:8:"]
    assert "Did you mean 'vault'" in lines[0]


def test_one_tool_is_configured_once(tmp_path: Path) -> None:
    path = tmp_path / "follow.toml"
    table = '[[follow]]\ntool = "vault"\ninstance = "eu-1"\nfiles = ["{}"]\n'
    path.write_text(table.format("a") + table.format("b"))
    with pytest.raises(ConfigError, match=r"vault/eu-1 is there twice: list all its files in one \[\[follow\]\] table"):
        load_follow_config(path)
    path.write_text(table.format("-") + table.format("-").replace("vault", "hoop"))
    with pytest.raises(ConfigError, match="only one tool can read standard input"):
        load_follow_config(path)
    path.write_text(table.format("a") + table.format("b").replace("eu-1", "eu-2"))
    assert [one.name for one in load_follow_config(path).follow] == ["vault/eu-1", "vault/eu-2"]


COMMAND_ERRORS = {
    "nothing": ((), "name a tool and its files"),
    "no file": (("vault",), "name a tool and its files"),
    "unknown tool": (("vualt", "a.log"), "Did you mean 'vault'?"),
    "no unit": (("vault", "journald:"), "journald: needs the name of a unit"),
    "no name": (("vault", ""), "FILES: String should have at least 1 character"),
    "no instance": (("vault", "a.log", "--instance", ""), "INSTANCE: String should have at least 1 character"),
    "tool and file": (("vault", "a.log", "--tools", "follow.toml"), "--tools names everything"),
    "no such file": (("--tools", "follow.toml"), "follow.toml: cannot be read: No such file or directory"),
    "damaged state": (("vault", "a.log", "--state", "damaged"), "damaged: not a file of positions"),
}


@pytest.mark.parametrize("arguments, problem", COMMAND_ERRORS.values(), ids=COMMAND_ERRORS.keys())
def test_a_wrong_command_is_one_line(
    arguments: tuple[str, ...], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").write_text("no positions")
    done = invoke("follow", *arguments)
    assert done.exit_code == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
