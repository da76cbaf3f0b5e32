"""The enforcer as its users run it: commands in Kafka, a policy in a file, and a separate process."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grantledger.kafka.offsets import committed_offset, end_offset, first_offset
from grantledger.kafka.records import read_range
from grantledger.runtime.children import Child, ChildSpec
from grantledger.runtime.source_keys import own_signer
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import (
    FINDINGS_TOPIC,
    LIFECYCLE_TOPIC,
    Actor,
    Event,
    EventSource,
    Finding,
    IssuingSource,
    Resource,
    Subject,
)
from grantledger.schemas.topics import COMMANDS_TOPIC

from .events import produce, read_datum
from .fork_server import ForkedChild
from .pipeline import Pipeline
from .quick_sealer import QuickSealer
from .waiting import wait_for

DEADLINE = datetime(2026, 3, 1, 12, tzinfo=UTC)

PROGRAM = '''
"""Access is a file with the id of its grant. Looks it up or revokes it, and records each request to revoke."""
import json, os, sys
from pathlib import Path

what, folder = sys.argv[1], Path(sys.argv[2])
grant = json.load(sys.stdin)["grant_id"]
access = folder / "access" / grant
if what == "look":
    sys.exit(0 if access.exists() else 3)
with (folder / "taken").open("a") as notes:
    notes.write(grant + "\\n")
late = (folder / "hold-after").exists()
if late:
    access.unlink(missing_ok=True)
if late or (folder / "hold-before").exists():
    draft = folder / "pid.draft"
    draft.write_text(str(os.getpid()))
    draft.rename(folder / "held")
    (folder / "go").open().read()  # a pipe, which opens when the test writes to it
access.unlink(missing_ok=True)
'''


def revocation(grant: str, deadline: datetime = DEADLINE, **fields: Any) -> Event:
    """Return a revoke command, as the watch publishes it."""
    given: dict[str, Any] = {
        "event_type": "revoke.requested",
        "occurred_at": datetime.now(UTC),
        "source": EventSource("grantledger-watch", "test.example", f"{grant}:{deadline.isoformat()}", "command"),
        "subject": Subject("alice@example.com", "human", "alice@example.com"),
        "actor": Actor("grantledger-watch", "system"),
        "resource": Resource("database", "orders", "production"),
        "entitlement": "readwrite",
        "grant_id": grant,
        "grant_id_kind": "native",
        "grant_source": IssuingSource("bot", "eu-1"),
        "finding": Finding("overdue", grant, "critical", deadline),
    }
    return Event(**(given | fields))


def activation(command: Event) -> Event:
    """Return the activation of the grant of a command, as its source reports it."""
    issuer, finding = command.grant_source, command.finding
    assert issuer is not None and finding is not None and finding.deadline is not None
    return Event(
        event_type="grant.activated",
        occurred_at=finding.deadline - timedelta(hours=1),
        source=EventSource(issuer.system, issuer.instance, f"{command.grant_id}:{finding.deadline}", "record"),
        actor=Actor(command.subject.id, "human"),
        expires_at=finding.deadline,
        expiry_source="native",
        **{
            name: getattr(command, name)
            for name in ("tenant", "subject", "resource", "entitlement", "grant_id", "grant_id_kind")
        },
    )


class Enforcement:
    """The enforcers of one deployment, with a folder in which each file is an access.

    The pipeline's own deployment uses its topics and key. Any other deployment gets its own.
    """

    def __init__(self, pipeline: Pipeline, deployment: str, folder: Path, **settings: str) -> None:
        self.deployment, self.folder = deployment, folder
        (folder / "data").mkdir(parents=True)
        shared = deployment == pipeline.deployment
        self.pipeline = Pipeline(
            pipeline.bootstrap_servers,
            folder / "data",
            deployment=deployment,
            topic_prefix=pipeline.cluster.topic_prefix if shared else f"{deployment}.",
        )
        if not shared:
            self.pipeline.make_topics(activity_partitions=1)
        self.cluster = self.pipeline.cluster
        keys = (pipeline if shared else self.pipeline).data_dir / "keys"
        self.environment = {
            **self.pipeline.environment,
            "GRANTLEDGER_PUBLIC_KEY_FILE": str(keys / "log.pub"),
            "GRANTLEDGER_SOURCE_KEY_FOLDER": str(keys / "sources"),
            "GRANTLEDGER_ENFORCE_CONFIG": str(folder / "enforce.toml"),
            **{f"GRANTLEDGER_ENFORCE_{name.upper()}": value for name, value in settings.items()},
        }
        self._sealer = QuickSealer(self.pipeline)
        self._children: list[Child] = []
        self._programs: list[int] = []
        (folder / "access").mkdir()
        (folder / "program.py").write_text(PROGRAM)
        os.mkfifo(folder / "go")
        self.policy(
            f"[targets.files]\nplugin = 'exec'\ncommand = {self.program('take')}\nread_back = {self.program('look')}\n"
            "timeout_seconds = 300\n"
            "[[routes]]\ntarget = 'files'\nsources = ['*']\n"
        )

    def program(self, what: str) -> str:
        """Return the command line of the program that revokes (``take``) or looks up (``look``), for the policy."""
        return json.dumps([sys.executable, "-I", "-S", str(self.folder / "program.py"), what, str(self.folder)])

    def policy(self, text: str, history_after: float = 1e9) -> None:
        # The deadlines of most tests have long passed when the grants are reported.
        head = f"backoff_seconds = 0.2\nhistory_after_seconds = {history_after}\n"
        (self.folder / "enforce.toml").write_text(head + text)

    # --- events in Kafka

    def request(self, *events: Event) -> list[tuple[bytes, str]]:
        """Request revocations as the watch of this deployment does, and seal that; return values and keys.

        The grants were activated before.
        """
        own = [replace(one, source=replace(one.source, instance=self.deployment)) for one in events]
        values = [(EventEncoder().encode(event), event.key) for event in own]
        given = [{"value": EventEncoder().encode(activation(one)), "key": one.key} for one in own]
        produce(self.cluster, LIFECYCLE_TOPIC, given)
        produce(self.cluster, FINDINGS_TOPIC, [self.signed(FINDINGS_TOPIC, *value) for value in values])
        self.seal()
        return values

    def seal(self) -> None:
        """Seal what the topics contain now, unless a sealer runs."""
        if "seal" not in self.pipeline.children:
            self._sealer.seal(LIFECYCLE_TOPIC, FINDINGS_TOPIC)

    def send(self, *events: Event) -> None:
        """Send commands as the watch of this deployment does."""
        values = self.request(*events)
        produce(self.cluster, COMMANDS_TOPIC, [self.signed(COMMANDS_TOPIC, *value) for value in values])

    def signed(self, topic: str, value: bytes | None, key: str, source: str = "grantledger-watch") -> dict[str, Any]:
        """Return a record that a source of this deployment has signed."""
        headers = own_signer(self.pipeline.settings(), source).headers(topic, key, value)
        return {"value": value, "key": key, "headers": headers}

    def grant(self, *grants: str) -> None:
        """Create access and the commands to revoke it."""
        for grant in grants:
            (self.folder / "access" / grant).touch()
        self.send(*map(revocation, grants))

    def expire_commands(self) -> None:
        """Delete every command, as retention does."""
        end = end_offset(self.cluster, COMMANDS_TOPIC, 0, committed=False)
        for future in self.cluster.admin.delete_records([self.cluster.partition(COMMANDS_TOPIC, 0, end)]).values():
            future.result(30)

    def recorded(self, topic: str) -> list[dict[str, Any]]:
        """Return the events of this deployment's enforcer in a topic, with parsed evidence."""
        end = end_offset(self.cluster, topic, 0)
        found = []
        for message in read_range(self.cluster, topic, 0, first_offset(self.cluster, topic, 0), end):
            value = message.value() or b""
            if not value.startswith(event_schema().prefix):
                continue
            datum = read_datum(value)
            source = datum["source"]
            own = source["system"] in ("grantledger-enforcer", "grantledger-operator")
            if own and source["instance"] == self.deployment and datum["event_type"] != "source.registered":
                finding = datum["finding"]
                wanted = finding["key"] if finding else datum["grant_id"]
                assert message.key() == wanted.encode(), "the record's key"
                found.append(datum | {"evidence": json.loads(finding["evidence"]) if finding else {}})
        return found

    def findings(self) -> list[dict[str, Any]]:
        return self.recorded(FINDINGS_TOPIC)

    def history(self, grant: str) -> list[tuple[str, str, int]]:
        """Return type, outcome and attempt number of each event about a grant."""
        return [
            (datum["event_type"], datum["outcome"], datum["evidence"]["attempt"])
            for datum in self.findings()
            if datum["grant_id"] == grant
            and datum["source"]["system"] == "grantledger-enforcer"
            and datum["event_type"] != "revoke.dry_run"
        ]

    def removals(self) -> list[str]:
        """Return the grants whose removal is on record, one entry per record."""
        found = self.recorded(LIFECYCLE_TOPIC)
        assert all((d["event_type"], d["removal_evidence"]) == ("grant.revoked", "confirmed") for d in found)
        return [datum["grant_id"] for datum in found]

    def lag(self) -> int:
        """Return how many offsets of the commands are not committed."""
        group = f"{self.deployment}-enforce"
        committed = committed_offset(self.cluster, group, COMMANDS_TOPIC, 0)
        first, end = (ask(self.cluster, COMMANDS_TOPIC, 0) for ask in (first_offset, end_offset))
        return end - (committed if committed >= 0 else first)

    # --- processes

    def start(self, *arguments: str, name: str = "") -> Child:
        """Start ``grantledger run enforce``. With a name, it is another process with its own data folder."""
        data_dir = self.folder / f"data{name}"
        environment = self.environment | {"GRANTLEDGER_DATA_DIR": str(data_dir)}
        child = ForkedChild(ChildSpec("enforce", ("run", "enforce", *arguments)), data_dir, environment)
        self._children.append(child)
        child.start()
        return child

    def acting(self, name: str = "") -> Child:
        """Start one that carries out commands, and wait until it reads them."""
        child = self.start("--carry-out", name=name)
        self.wait_log(child, '"enforcing"')
        return child

    def wait_log(self, child: Child, word: str, times: int = 1) -> None:
        def there() -> bool:
            text = child.log_path.read_text("utf-8", "replace")
            assert text.count(word) >= times or child.alive(), f"it ended with {child.exit_code}: {text[-2000:]}"
            return text.count(word) >= times

        wait_for(there, f"{word} in the log", pause=0.05)

    def end(self, child: Child) -> None:
        """Stop a process; it must exit with 0 in time."""
        assert child.stop(), "it did not stop when asked"
        assert child.exit_code == 0, child.log_path.read_text("utf-8", "replace")[-2000:]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its exit code, standard output and standard error."""
        found = self.pipeline.run(*arguments, environment=self.environment)
        return found.returncode, found.stdout, found.stderr

    def requested(self) -> list[str]:
        """Return the grants that the program was asked to revoke, one entry per request."""
        notes = self.folder / "taken"
        return notes.read_text().split() if notes.exists() else []

    def present(self) -> set[str]:
        """Return the access that exists."""
        return {path.name for path in (self.folder / "access").iterdir()}

    def hold(self, when: str) -> None:
        """Block the program from now on: ``before`` it has removed the access, or ``after``."""
        (self.folder / f"hold-{when}").touch()

    def wait_held(self) -> int:
        """Wait until a program is blocked, do not block later ones, and return its process id."""
        wait_for((self.folder / "held").exists, "the program is blocked", pause=0.02)
        for hold in self.folder.glob("hold-*"):
            hold.unlink()
        self._programs.append(int((self.folder / "held").read_text()))
        (self.folder / "held").unlink()
        return self._programs[-1]

    def release(self) -> None:
        """Let the blocked program continue."""
        (self.folder / "go").write_text("")

    def stop(self) -> None:
        """End every process, and programs that are still blocked."""
        for child in self._children:
            child.stop()
        if (self.folder / "held").exists():
            self.wait_held()
        for program in self._programs:
            with suppress(OSError):
                if str(self.folder).encode() in Path(f"/proc/{program}/cmdline").read_bytes():
                    os.kill(program, signal.SIGKILL)
