"""``grantledger up``: it drains, leaves nothing behind, comes back after any death, shares its folder with nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.waiting import wait_for


class Up:
    """A stack in a data folder, run as a user runs it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        names = ("DEPLOYMENT", "KAFKA_BOOTSTRAP_SERVERS", "DATA_DIR", "CONFIG")
        self.environment = {n: v for n, v in os.environ.items() if n.removeprefix("GRANTLEDGER_") not in names}
        self.environment["GRANTLEDGER_ANCHOR_INTERVAL_SECONDS"] = "1"
        self.environment["GRANTLEDGER_SEAL_LINGER_SECONDS"] = "0.2"
        self.environment |= {"GRANTLEDGER_KAFKA_PORT": "0", "GRANTLEDGER_SQL_PORT": "0"}  # others test at the same time
        self.process: subprocess.Popen[str] | None = None
        self.output = data_dir.parent / f"{data_dir.name}.out"

    def start(self) -> None:
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                self._command("up"), stdout=output, stderr=subprocess.STDOUT, text=True, env=self.environment
            )
        wait_for(self._ready, "the stack is ready", limit=90)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        return "Ready: " in self.said()

    def said(self) -> str:
        return self.output.read_text()

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "grantledger.cli", *arguments, "--data", str(self.data_dir)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments), capture_output=True, text=True, env=self.environment, timeout=120, check=False
        )

    def end(self, number: signal.Signals, limit: float = 90.0) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(limit)

    def family(self) -> dict[int, str]:
        """The processes that work in the data folder, by what they have in their command line or environment."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                environment = (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, IndexError):
                continue
            mine = str(self.data_dir) in command or f"GRANTLEDGER_DATA_DIR={self.data_dir}".encode() in environment
            if mine and state != "Z":
                found[int(folder.name)] = command
        return found

    def send(self, count: int) -> None:
        sent = self.run("demo", "--traffic-only", "--lives", str(count), "--seed", "3")
        assert sent.returncode == 0, sent.stderr

    def entries(self) -> int:
        """How many entries of access systems are stored; what the stack itself finds may come at any time."""
        sql = "SELECT count() FROM entries WHERE origin NOT LIKE '%/access.findings/%'"

        def ask() -> str:  # while a store starts it has the folder and does not answer yet
            answer = self.run("query", sql, "--format", "TSV")
            return answer.stdout if answer.returncode == 0 else ""

        return int(wait_for(ask, "the store answers"))

    def assert_sound(self) -> None:
        verified = self.run("verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("stack") / "data")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGINT)


def pid_of(up: Up, word: str) -> int:
    [pid] = [pid for pid, command in up.family().items() if f"grantledger.cli run {word}" in command]
    return pid


def test_it_drains_and_leaves_nothing_behind(up: Up) -> None:
    up.start()
    assert any("kafka.Kafka" in command for command in up.family().values())
    up.send(30)
    assert up.end(signal.SIGINT) == 0, up.said()
    assert up.family() == {}
    assert not (up.data_dir / "run" / "stack.json").exists()
    entries = up.entries()  # nobody has the store open: the command opens it itself
    assert entries > 30
    up.assert_sound()


def test_it_goes_on_where_it_was(up: Up) -> None:
    before = up.entries()
    up.start()
    assert up.entries() == before
    up.send(10)
    wait_for(lambda: up.entries() > before, "what was sent is stored")
    up.assert_sound()


def test_a_second_one_is_refused_and_does_no_harm(up: Up) -> None:
    family = up.family()
    second = up.run("up")
    assert second.returncode == 2
    assert second.stdout == "", "it says so at once, and nothing else"
    assert len(second.stderr.splitlines()) == 1
    assert "a stack is already running in" in second.stderr and "(pid " in second.stderr
    assert set(family) <= set(up.family())
    assert (up.data_dir / "run" / "stack.json").exists(), "the second one removed what the first one wrote"
    up.send(1)  # which finds the brokers through the folder


def test_children_that_die_are_started_again(up: Up) -> None:
    before = {name: pid_of(up, name) for name in ("seal", "store", "anchor")}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def back(name: str) -> bool:
        return any(
            f"grantledger.cli run {name}" in command and pid != before[name] for pid, command in up.family().items()
        )

    wait_for(lambda: all(map(back, before)), "they are started again", limit=20)
    assert up.process is not None and up.process.poll() is None


def test_kafka_that_dies_is_started_again(up: Up) -> None:
    [java] = [pid for pid, command in up.family().items() if "kafka.Kafka" in command]
    os.kill(java, signal.SIGKILL)

    def back() -> bool:
        return any("kafka.Kafka" in command and pid != java for pid, command in up.family().items())

    wait_for(back, "Kafka is started again")
    wait_for(lambda: up.run("topics", "check").returncode == 0, "it answers")
    before = up.entries()
    up.send(5)
    wait_for(lambda: up.entries() > before, "what was sent is stored")
    assert up.process is not None and up.process.poll() is None, up.said()


def test_killed_it_leaves_no_orphan_and_comes_back(up: Up) -> None:
    before = up.entries()
    up.send(20)
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: up.family() == {}, "nothing is left", limit=15)
    up.start()
    wait_for(lambda: up.entries() >= before + 20, "what was sent is stored")
    up.assert_sound()
    assert up.end(signal.SIGTERM) == 0, up.said()
    assert up.family() == {}


def test_a_stop_while_it_starts_is_heard(up: Up) -> None:
    with up.output.open("w") as output:
        up.process = subprocess.Popen(
            up._command("up"), stdout=output, stderr=subprocess.STDOUT, text=True, env=up.environment
        )
    wait_for(lambda: "started seal" in up.said(), "its processes are starting")
    assert up.end(signal.SIGINT) == 0, up.said()
    assert up.family() == {}
