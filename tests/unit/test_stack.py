"""The local stack survives a Kafka that fails again while it is restarted."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from grantledger.base.errors import GrantledgerError
from grantledger.base.toml import ConfigError
from grantledger.cli.stack_view import demo_policy, with_demo_policy
from grantledger.runtime import stack as module
from grantledger.runtime.broker import BrokerError
from grantledger.runtime.children import ChildSpec
from grantledger.runtime.settings import Settings
from grantledger.runtime.stack import Stack
from grantledger.runtime.stack_file import STACK_FILE
from grantledger.runtime.status import SUPERVISOR_FILE
from grantledger.runtime.store_access import open_store
from grantledger.sinks.clickhouse import StoreUnavailableError


class FailingBroker:
    """A Kafka that is killed twice while it starts."""

    def __init__(self) -> None:
        self.starts = 0

    def alive(self) -> bool:
        return self.starts == 3

    def start(self) -> None:
        self.starts += 1
        if self.starts < 3:
            raise BrokerError("the local Kafka ended with status -9 while starting.\nThe end of a log")


def test_a_broker_that_is_killed_again_while_it_restarts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, lines = [100.0], list[str]()
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stack, broker = Stack(Settings(data_dir=tmp_path), lines.append), FailingBroker()
    stack._broker = broker  # type: ignore[assignment]
    (tmp_path / "run").mkdir()
    stack.restart_failed()
    stack.restart_failed()  # it waits: no second start at once
    assert broker.starts == 1
    for _ in range(4):
        now[0] += 5.0
        stack.restart_failed()
    assert broker.starts == 3
    assert sum("could not be restarted" in line for line in lines) == 2
    assert not any("\n" in line for line in lines)


def test_a_full_disk_is_reported_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list[str]()
    stack, child = Stack(Settings(data_dir=tmp_path), lines.append), Restarted()
    stack._children = [child]  # type: ignore[list-item]
    full = [True]

    def write(*_arguments: object) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / SUPERVISOR_FILE))

    monkeypatch.setattr(module, "write_processes", write)
    for _ in range(3):
        stack.restart_failed()
    assert lines == [f"{tmp_path / SUPERVISOR_FILE} cannot be written: the disk is full: make room"]
    full[0] = False
    stack.restart_failed()
    assert len(lines) == 1


class Restarted:
    """A process that was restarted: its trouble ends as time passes."""

    pid, restarts, trouble, spec = 7, 1, "watch was restarted once: why", ChildSpec("watch", ())

    def restart_if_failed(self) -> None: ...


def test_a_trouble_that_is_over_is_over_for_other_commands(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stack, child = Stack(Settings(data_dir=tmp_path), lambda _: None), Restarted()
    stack._children = [child]  # type: ignore[list-item]

    def published() -> object:
        stack.restart_failed()
        return json.loads((tmp_path / SUPERVISOR_FILE).read_text())[0]["trouble"]

    assert published() == child.trouble
    child.trouble = None  # type: ignore[assignment]
    assert published() is None


def test_a_command_leaves_the_store_of_a_running_stack_to_it(tmp_path: Path) -> None:
    """A command that opened the folder while the store is down would keep the store from starting again."""
    settings = Settings(data_dir=tmp_path)
    settings.store_path.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / STACK_FILE).write_text(json.dumps({"pid": os.getpid()}))
    with pytest.raises(StoreUnavailableError, match="does not answer yet"), open_store(settings):
        pass
    assert not list(settings.store_path.iterdir())


def test_a_taken_port_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        for name, settings in (
            ("sql_port", Settings(data_dir=tmp_path, sql_port=port)),
            ("kafka_port", Settings(data_dir=tmp_path, kafka_port=port, sql_port=0)),
        ):
            stack = Stack(settings, lambda _: None)
            with pytest.raises(GrantledgerError, match=f"port {port} on 127.0.0.1 is taken: choose another {name}"):
                stack.start()
            stack.stop()


def test_a_wrong_file_is_reported_before_anything_starts(tmp_path: Path) -> None:
    policy, alerts = tmp_path / "policy.toml", tmp_path / "alerts.toml"
    policy.write_text("[default]\ngrace_second = 3\n")
    alerts.write_text('[channels.a]\nkind = "webhok"\n')
    for settings, problem in (
        (Settings(data_dir=tmp_path / "a", sql_port=0, watch_policy=policy), "policy.toml:2: default.grace_second"),
        (Settings(data_dir=tmp_path / "a", sql_port=0, alert_config=alerts), "alerts.toml:2: channels.a.kind"),
    ):
        stack = Stack(settings, lambda _: None)
        with pytest.raises(ConfigError, match=problem):
            stack.start()
        stack.stop()


def test_simulated_traffic_stays_under_the_policy_of_the_demo(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert with_demo_policy(settings).watch_policy is None
    demo_policy(settings).write_text("")
    assert with_demo_policy(settings).watch_policy == tmp_path / "demo-policy.toml"
    own = Settings(data_dir=tmp_path, watch_policy=tmp_path / "own.toml")
    assert with_demo_policy(own).watch_policy == tmp_path / "own.toml"
