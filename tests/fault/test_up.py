"""``grantledger demo`` and ``up``: they drain, leave no process behind, recover, and own their data folder."""

from __future__ import annotations

import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from grantledger.console.address import read_address
from grantledger.producers.gateway.credentials import token_digest
from grantledger.runtime.loopback_ports import free_port
from grantledger.runtime.self_signed import ensure_certificate
from grantledger.sinks.clickhouse import StoreUnavailableError
from support.command import run_command
from support.reading import read_rows_with
from support.waiting import wait_for


class Up:
    """A stack in a data folder, run as a user runs it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        names = ("DEPLOYMENT", "KAFKA_BOOTSTRAP_SERVERS", "DATA_DIR", "CONFIG")
        self.environment = {n: v for n, v in os.environ.items() if n.removeprefix("GRANTLEDGER_") not in names}
        self.environment["GRANTLEDGER_ANCHOR_INTERVAL_SECONDS"] = "3"
        self.environment |= {"GRANTLEDGER_KAFKA_PORT": "0", "GRANTLEDGER_SQL_PORT": "0"}  # others test at the same time
        self.process: subprocess.Popen[str] | None = None
        self.output = data_dir.parent / f"{data_dir.name}.out"

    def launch(self, *arguments: str) -> None:
        """Start the stack with a command."""
        command = [sys.executable, "-m", "grantledger.cli", *arguments, "--data", str(self.data_dir)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, text=True, env=self.environment
            )

    def start(self, *arguments: str) -> None:
        """Start the stack, with ``up`` unless another command is given, and wait until it is ready."""
        self.launch(*(arguments or ("up",)))
        self.wait_printed("Ready: ")

    def wait_printed(self, text: str) -> None:
        def there() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.printed()
            return text in self.printed()

        wait_for(there, f"{text!r} is printed", limit=90)

    def printed(self) -> str:
        return self.output.read_text()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, "--data", str(self.data_dir), environment=self.environment)

    def paste(self, label: str) -> str:
        """Run the command line that the stack printed after a label, as it stands, and return its output."""
        [line] = re.findall(rf"^ *{re.escape(label)} +(.*)$", self.printed(), re.MULTILINE)
        done = subprocess.run(
            shlex.split(line), capture_output=True, text=True, env=self.environment, timeout=120, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def end(self, number: signal.Signals, limit: float = 90.0) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(limit)

    def family(self) -> dict[int, str]:
        """Return the processes that work in the data folder: it is in their command line or environment."""
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

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query; none while a store that is starting owns the folder and does not answer yet."""
        with suppress(StoreUnavailableError, ClickHouseError):
            return read_rows_with(self.environment, sql, self.data_dir)
        return []

    def entries(self) -> int:
        """Return how many entries of access systems are stored, without the stack's own findings."""
        sql = "SELECT count() AS c FROM entries WHERE origin NOT LIKE '%/access.findings/%'"
        return int(wait_for(lambda: self.rows(sql), "the store answers", pause=0.5)[0]["c"])

    def assert_sound(self) -> None:
        verified = self.run("verify")
        assert verified.returncode in (0, 4), verified.stdout + verified.stderr


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("stack") / "data")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end(signal.SIGINT)


def runs(command: str, name: str) -> bool:
    """Whether a command line is that of a process of the pipeline. The store replaces itself in its sandbox."""
    return f"grantledger.cli run {name}" in command or f"grantledger.runtime.{name}_program" in command


def pid_of(up: Up, word: str) -> int:
    [pid] = [pid for pid, command in up.family().items() if runs(command, word)]
    return pid


def test_ctrl_c_while_kafka_formats_its_folder_is_no_failure(up: Up) -> None:
    """The next test starts in the same folder."""
    up.launch("up")
    up.wait_printed("formatting the storage")
    wait_for((up.data_dir / "kafka" / "formatting").exists, "it formats")
    assert up.process is not None
    for pid in up.family():  # as a terminal does it: every process of the foreground group gets the signal
        if os.getpgid(pid) == os.getpgid(up.process.pid) and pid != up.process.pid:
            os.kill(pid, signal.SIGINT)
    assert up.end(signal.SIGINT) == 0, up.printed()
    assert "Traceback" not in up.printed() and "could not" not in up.printed()
    assert up.printed().endswith("Stopped during the start. The next start begins again.\n")
    assert up.family() == {}
    assert not (up.data_dir / "kafka" / "data").exists()


def test_demo_leads_from_the_finding_to_its_resolution(up: Up) -> None:
    """The commands that it prints work as they stand."""
    up.start("demo", "--rate", "5", "--lives", "12", "--seed", "3")
    assert any("kafka.Kafka" in command for command in up.family().values())
    up.wait_printed("FINDING overdue: ")
    [grant] = set(re.findall(r"\bdemo-[0-9a-f]{6}\b", up.printed()))
    assert grant in up.paste("see open findings:")
    history = up.paste("see the grant's history:")
    assert "request.created" in history and "overdue, found" in history
    assert "SOUND" in up.paste("verify the evidence:")
    up.paste("report the removal:")
    resolved = f"SELECT 1 FROM finding_events WHERE event_type = 'finding.resolved' AND grant_id = '{grant}'"
    wait_for(lambda: up.rows(resolved), "the finding is resolved")  # far cheaper than the command
    assert grant not in up.run("findings").stdout


def test_a_second_stack_is_refused_and_does_no_harm(up: Up) -> None:
    family = up.family()
    second = up.run("up")
    assert second.returncode == 2
    assert second.stdout == "", "it reports this at once, and nothing else"
    assert len(second.stderr.splitlines()) == 1
    assert "a stack is already running in" in second.stderr and "(pid " in second.stderr
    assert set(family) <= set(up.family())
    assert (up.data_dir / "run" / "stack.json").exists(), "the second stack removed a file of the first one"
    up.send(1)  # finds the brokers through the folder


def test_killed_children_are_restarted(up: Up) -> None:
    before = {name: pid_of(up, name) for name in ("seal", "store", "anchor")}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def back(name: str) -> bool:
        return any(runs(command, name) and pid != before[name] for pid, command in up.family().items())

    wait_for(lambda: all(map(back, before)), "they are restarted", limit=20)
    assert up.process is not None and up.process.poll() is None


def test_a_killed_kafka_is_restarted(up: Up) -> None:
    [java] = [pid for pid, command in up.family().items() if "kafka.Kafka" in command]
    os.kill(java, signal.SIGKILL)

    def back() -> bool:
        return any("kafka.Kafka" in command and pid != java for pid, command in up.family().items())

    wait_for(back, "Kafka is restarted")
    wait_for(lambda: up.run("topics", "check").returncode == 0, "it answers")
    before = up.entries()
    up.send(5)
    # Processes restart after pauses.
    wait_for(lambda: up.entries() > before, "the new events are stored", limit=120, pause=1.0)
    assert up.process is not None and up.process.poll() is None, up.printed()


def test_a_killed_stack_leaves_no_orphan_and_the_next_start_continues(up: Up) -> None:
    before = up.entries()
    up.send(20)
    assert up.end(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: up.family() == {}, "no process is left")
    serve_other_machines(up)
    up.start()
    wait_for(lambda: up.entries() >= before + 20, "the new events are stored", pause=1.0)


def serve_other_machines(up: Up) -> None:
    """Let the next start serve SQL and the gateway over TLS."""
    made = ensure_certificate(up.data_dir.parent / "tls", ["127.0.0.1"])
    gateway = up.data_dir.parent / "gateway.toml"
    gateway.touch(0o600)
    gateway.write_text(
        f'listen = "127.0.0.1:{free_port()}"\ntls_certificate = "{made.certificate}"\ntls_key = "{made.key}"\n'
        f'[[source]]\nname = "s"\nsystem = "s"\ninstance = "1"\n'
        f'[[token]]\nsource = "s"\nsha256 = "{token_digest("token")}"\n'
    )
    up.environment |= {
        "GRANTLEDGER_GATEWAY_CONFIG": str(gateway),
        "GRANTLEDGER_SQL_LISTEN": f"127.0.0.1:{free_port()}",
        "GRANTLEDGER_SQL_TLS_CERTIFICATE": str(made.certificate),
        "GRANTLEDGER_SQL_TLS_KEY": str(made.key),
    }


def test_other_machines_reach_sql_and_the_gateway_over_tls(up: Up) -> None:
    tls = ssl.create_default_context(cafile=up.data_dir.parent / "tls" / "ca.pem")
    address = read_address(up.data_dir)
    assert address is not None
    url = f"https://{up.environment['GRANTLEDGER_SQL_LISTEN']}"
    with httpx.Client(verify=tls, auth=(address.analyst.user, address.analyst.password)) as client:
        assert client.post(url, content="SELECT count() > 0 FROM events").text == "1\n"
        assert client.get(f"{url}/ping").text == "Ok.\n"
        assert client.post(url, content="SELECT 1", auth=("analyst", "wrong")).status_code == 403
        long = client.get(url, headers={"x": "y" * 40_000})  # the refusal of a malformed request also comes over TLS
        assert long.status_code == 431
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(url.replace("https", "http"), content="SELECT 1")
    listen = tomllib.loads(Path(up.environment["GRANTLEDGER_GATEWAY_CONFIG"]).read_text())["listen"]
    event = {"event_type": "session.started", "subject": "a", "session_id": "tls", "source": {"native_id": "1"}}
    with httpx.Client(verify=tls, headers={"Authorization": "Bearer token"}) as client:
        assert client.post(f"https://{listen}/v1/events", json=event).json()["accepted"] == 1
    wait_for(lambda: up.rows("SELECT 1 FROM events WHERE session_id = 'tls'"), "the event is stored")


def test_it_drains_and_leaves_nothing_behind(up: Up) -> None:
    """Afterwards, the evidence of all tests before this one is sound."""
    before = up.entries()
    up.send(10)
    assert up.end(signal.SIGINT) == 0, up.printed()
    assert up.family() == {}
    assert not (up.data_dir / "run" / "stack.json").exists()
    assert up.entries() >= before + 10  # no process has the store open: the command opens it itself
    up.assert_sound()


@pytest.mark.slow
def test_a_stack_can_be_stopped_while_it_starts(up: Up) -> None:
    before = up.entries()
    up.launch("up")
    up.wait_printed("started seal")
    assert up.end(signal.SIGTERM) == 0, up.printed()
    assert up.family() == {}
    assert up.entries() == before
