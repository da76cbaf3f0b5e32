"""A real sudo logs through a real rsyslogd, to a file that is followed and to the gateway.

The machine stays as it is: sudo runs in a mount namespace of its own, in which ``/etc/sudoers`` and ``/dev/log`` are
those of the test.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grantledger.schemas.event import Event
from support.following import run_once
from support.gateway import imported_ids
from support.real_programs import needed, rsyslog
from support.served_gateway import served
from support.waiting import wait_for

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources" / "sudo.md").read_text("utf-8")
RIGHTS = """
Defaults !authenticate, !use_pty, !mailerpath
Defaults log_output, iolog_dir={io}, iolog_file=%{{seq}}
nobody ALL=(daemon) /usr/bin/true, /bin/sh
"""
LONG = "x" * 20_000
SCRIPT = f"""
set -e
mount -t tmpfs none "$1/dev"
for device in null zero random urandom tty; do touch "$1/dev/$device"; mount --bind /dev/$device "$1/dev/$device"; done
ln -s "$1/log.sock" "$1/dev/log"
mount --rbind "$1/dev" /dev
mount --bind "$1/sudoers" /etc/sudoers
cd /
nobody() {{ setpriv --reuid=65534 --regid=65534 --clear-groups sudo -n "$@" || true; }}
nobody -u daemon true a 'b  "c" é'
nobody -u daemon sh -c 'exit 3'
nobody -u daemon sh -c 'kill -TERM $$'
nobody -u daemon true {LONG}
nobody -u root id
setpriv --reuid=1 --regid=1 --clear-groups sudo -n true || true
"""
EVENTS = 4 * 2 + 2
"""Of four commands that were accepted, the beginning and the end; and two refusals."""


@dataclass
class Logged:
    """What sudo wrote: the file of the page, recorded sessions, its events by ``follow``, and those of the gateway."""

    file: Path
    recorded: list[Path]
    followed: list[Event]
    sent: list[dict[str, Any]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    needed("sudo", "sudo")
    folder = tmp_path_factory.mktemp("sudo")
    (folder / "dev").mkdir()
    unshare = [needed("unshare", "util-linux"), "--mount"]
    mount = [*unshare, "mount", "-t", "tmpfs", "none", folder / "dev"]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a mount namespace needs root, and is not allowed in every container")
    [settings] = re.findall(r"```\n(Defaults .*?)```", PAGE, re.DOTALL)
    sudoers, file = folder / "sudoers", folder / "sudo.json"
    sudoers.write_text(settings + RIGHTS.format(io=folder / "io"))
    sudoers.chmod(0o440)
    [rules] = re.findall(r"```\n(global\(.*?)```", PAGE, re.DOTALL)
    with served(folder, "sudo", syslog=("tcp",)) as gateway:
        forward = f'*.* action(type="omfwd" target="127.0.0.1" port="{gateway.ports["tcp"]}" protocol="tcp")'
        with rsyslog(folder, rules.replace("/var/log/sudo.json", str(file)) + forward):
            subprocess.run([*unshare, "sh", "-c", SCRIPT, "sh", folder], check=True, capture_output=True, timeout=60)
            gateway.wait_for_events(EVENTS)
        wait_for(lambda: file.read_bytes().count(b"\n") == EVENTS, "the file is written")
        kafka, follower = run_once(folder, str(file), tool="sudo")
        assert follower.report().failed == 0
        return Logged(file, sorted(folder.glob("io/**/log.json")), kafka.events, gateway.kafka.events)


def test_the_events_are_what_was_run(logged: Logged) -> None:
    shown = [
        (one.event_type, one.subject.id, one.entitlement, one.action and one.action.command, one.outcome, one.error)
        for one in logged.followed
    ]
    ended = ("session.ended", "unknown", None, None, "success")
    assert shown == [
        ("session.command", "nobody", "daemon", "/usr/bin/true", "success", None),
        (*ended, None),
        ("session.command", "nobody", "daemon", "/bin/sh", "success", None),
        (*ended, None),
        ("session.command", "nobody", "daemon", "/bin/sh", "success", None),
        (*ended, "TERM"),
        ("session.command", "nobody", "daemon", "/usr/bin/true", "success", None),
        (*ended, None),
        ("session.denied", "nobody", "root", "/usr/bin/id", "denied", "command not allowed"),
        ("session.denied", "daemon", "root", "/usr/bin/true", "denied", "user NOT in sudoers"),
    ]
    actions = [one.action for one in logged.followed if one.action]
    assert actions[0].args == ("a", 'b  "c" é') and actions[2].args == ("-c", "exit 3")
    assert actions[6].args == (LONG,)
    assert [one.exit_code for one in actions if one.exit_code is not None] == [0, 3, 143, 0]
    for begun, end in zip(logged.followed[:8:2], logged.followed[1:8:2], strict=True):
        assert begun.session_id == end.session_id and begun.occurred_at < end.occurred_at
    assert {one.resource.id for one in logged.followed if one.resource} == {os.uname().nodename}


def test_import_follow_and_gateway_give_the_same_ids(logged: Logged) -> None:
    content = logged.file.read_bytes()
    assert [one["event_id"] for one in logged.sent] == imported_ids("sudo", content)
    assert [one.event_id for one in logged.followed] == imported_ids("sudo", content, instance=None)


def test_the_files_of_recorded_sessions_say_what_was_run(logged: Logged, tmp_path: Path) -> None:
    kafka, follower = run_once(tmp_path, *map(str, logged.recorded), tool="sudo")
    assert follower.report().failed == 0
    begun, ended = logged.followed[:8:2], logged.followed[1:8:2]
    assert [(one.subject.id, one.entitlement, one.action) for one in kafka.events] == [
        (one.subject.id, one.entitlement, one.action) for one in begun
    ]
    for recorded, first, last in zip(kafka.events, begun, ended, strict=True):
        assert recorded.event_type == "session.command"
        assert first.occurred_at <= recorded.occurred_at <= last.occurred_at
