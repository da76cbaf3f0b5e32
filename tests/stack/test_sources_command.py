"""``grantledger sources``, and what signs with the keys that it makes."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.records import read_whole, signed_record
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_signature import is_signed_by, signature_in, signed_bytes
from grantledger.producers.signing import source_signer
from grantledger.schemas.catalog import own_schemas
from grantledger.schemas.codec import decode
from grantledger.schemas.event import FINDINGS_TOPIC, LIFECYCLE_TOPIC
from grantledger.schemas.own_sources import OWN_SOURCES
from support.cloudtrail import ISSUED, ROLE, record
from support.events import event
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

GRANT = {
    "event_type": "grant.activated", "subject": {"id": "alice"}, "grant_id": "g1", "entitlement": "rw",
    "resource": {"kind": "database", "id": "orders"}, "expiry_source": "unknown",
}  # fmt: skip

CERTIFICATE = {
    "event": "cert.create", "code": "TC000I", "uid": "u1", "time": "2026-03-01T12:00:00Z", "cluster_name": "prod",
    "cert_type": "user", "identity": {
        "user": "alice", "roles": ["dba"], "access_requests": ["r1"], "expires": "2026-03-01T20:00:00Z"
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    running.start()
    return running


def sources(pipeline: Pipeline, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return pipeline.run("sources", *arguments, environment={**pipeline.environment, **environment})


def listed(pipeline: Pipeline, system: str) -> list[dict[str, object]]:
    answer = sources(pipeline, "keys", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    return [row for row in json.loads(answer.stdout) if row["system"] == system]


def wait_listed(pipeline: Pipeline, system: str, keys: int) -> list[dict[str, object]]:
    wait_for(lambda: len(listed(pipeline, system)) == keys, f"{system} has {keys} keys")
    return listed(pipeline, system)


def test_a_source_is_added_rotated_and_removed(pipeline: Pipeline, tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "1.pem", tmp_path / "2.pem"
    named = ("vault", "--instance", "eu-1", "--as", "carol", "--reason", "INC-1")
    added = sources(pipeline, "add", *named, "--key", str(first), "--tenant", "acme")
    assert added.returncode == 0, added.stderr
    assert stat.S_IMODE(first.stat().st_mode) == 0o600 and stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    [row] = wait_listed(pipeline, "vault", 1)
    assert (row["instance"], row["tenant"], row["valid_until"], row["removed"]) == ("eu-1", "acme", None, False)

    again = sources(pipeline, "add", *named, "--key", str(second))
    assert again.returncode == 2 and "is registered already" in again.stderr and not second.exists()
    used = sources(pipeline, "rotate", *named, "--key", str(first))
    assert used.returncode == 2 and "exists already" in used.stderr
    assert sources(pipeline, "rotate", *named, "--key", str(second)).returncode == 0
    old, new = sorted(wait_listed(pipeline, "vault", 2), key=lambda row: str(row["valid_from"]))
    assert (old["key_id"], new["valid_until"]) == (row["key_id"], None) and old["valid_until"] is not None
    assert {old["tenant"], new["tenant"]} == {"acme"}
    table = sources(pipeline, "keys").stdout
    assert "valid until" in table and "no end" in table and str(old["valid_until"])[:10] in table

    assert sources(pipeline, "remove", *named).returncode == 0
    wait_for(lambda: listed(pipeline, "vault")[0]["removed"] is True, "vault is removed")
    gone = sources(pipeline, "remove", *named)
    assert gone.returncode == 2 and "is not registered" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("add", "a/b"), "must not contain '/'"),
        (("add", "grantledger-watch"), "for the pipeline's own sources"),
        (("rotate", "unknown"), "is not registered"),
    ],
)
def test_errors_make_no_key(pipeline: Pipeline, tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    key = tmp_path / "key.pem"
    answer = sources(pipeline, *arguments, "--instance", "eu-1", "--reason", "x", "--key", str(key))
    assert answer.returncode == 2 and problem in answer.stderr and not key.exists()


def test_own_sources_are_registered_once_and_not_removed(pipeline: Pipeline) -> None:
    rows = [row for row in json.loads(sources(pipeline, "keys", "-o", "json").stdout) if row["system"] in OWN_SOURCES]
    assert sorted(str(row["system"]) for row in rows) == sorted(OWN_SOURCES)
    folder = pipeline.settings().source_key_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    refused = sources(pipeline, "remove", "grantledger-watch", "--instance", pipeline.deployment, "--reason", "x")
    assert refused.returncode == 2 and "cannot be removed" in refused.stderr


def test_a_sender_signs_with_its_key(pipeline: Pipeline, tmp_path: Path) -> None:
    signer, key, file = LocalSigner.generate(), tmp_path / "key.pem", tmp_path / "events.jsonl"
    asked = {"roleArn": ROLE, "roleSessionName": "alice", "durationSeconds": 3600}
    taken = record("sts", "AssumeRole", requestParameters=asked, responseElements=ISSUED)
    file.write_text(json.dumps({"Records": [taken]}))
    key.write_bytes(signer.to_pem(None))
    key.chmod(0o600)
    line = json.dumps(GRANT)
    before = len(list(read_whole(pipeline.cluster, LIFECYCLE_TOPIC, 0)))
    sent = pipeline.run("emit", "--stdin", "--system", "hr", "--source-key", str(key), stdin=line)
    assert sent.returncode == 0, sent.stderr
    imported = pipeline.run("import", "cloudtrail", str(file), "--source-key", str(key))
    assert imported.returncode == 0, imported.stderr
    (log := tmp_path / "audit.log").write_text(json.dumps(CERTIFICATE))
    followed = pipeline.run("follow", "teleport", str(log), "--source-key", str(key), "--once")
    assert followed.returncode == 0, followed.stderr
    with pipeline.client(
        system="vault", instance="eu-2", signer=source_signer(pipeline.deployment, key.read_bytes())
    ) as client:
        client.send(event("grant.activated", 1))
    records = [signed_record(LIFECYCLE_TOPIC, one) for one in read_whole(pipeline.cluster, LIFECYCLE_TOPIC, 0)][before:]
    systems = {decode(one.value or b"", own_schemas(), 0)["source"]["system"] for one in records}
    assert len(systems) == 4  # of emit, import, follow and the client
    for one in records:
        message = signed_bytes(pipeline.deployment, LIFECYCLE_TOPIC, one.key, one.value)
        assert is_signed_by(signer.public_key, signature_in(one.headers) or b"", message)

    key.write_bytes(signer.to_pem(b"right"))
    wrong = tmp_path / "passphrase"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    environment = {**pipeline.environment, "GRANTLEDGER_SOURCE_KEY_PASSPHRASE_FILE": str(wrong)}
    refused = pipeline.run("emit", "--stdin", "--source-key", str(key), stdin=line, environment=environment)
    assert refused.returncode == 2 and "source_key_passphrase_file" in refused.stderr


def test_the_store_records_whether_an_own_source_signed(pipeline: Pipeline) -> None:
    name = "grantledger-alert"
    key = pipeline.settings().source_key_path / f"{name}.pem"
    named = ("emit", "--stdin", "--system", name, "--instance", pipeline.deployment)
    for grant, extra in (("signed", ("--source-key", str(key))), ("unsigned", ())):
        sent = pipeline.run(*named, *extra, stdin=json.dumps({**GRANT, "grant_id": grant}))
        assert sent.returncode == 0, sent.stderr

    def stored() -> dict[str, str]:
        rows = pipeline.query("SELECT grant_id, signature FROM events WHERE grant_id IN ('signed', 'unsigned')")
        return {row["grant_id"]: row["signature"] for row in rows}

    pipeline.wait_stored(2)  # the store has made its views
    wait_for(lambda: len(stored()) == 2, "both events are stored")
    assert stored() == {"signed": "valid", "unsigned": "missing"}


def test_init_names_the_person_and_registers_once(
    broker: RunningBroker, make_pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    made = make_pipeline(broker.bootstrap_servers)
    environment = {**made.environment, "GRANTLEDGER_DATA_DIR": str(tmp_path), "GRANTLEDGER_TOPIC_PREFIX": "once."}
    first = made.run("init", "--as", "carol", environment=environment)
    assert first.returncode == 0, first.stderr

    def registrations() -> list[str]:
        records = read_whole(Cluster(made.options, "once."), FINDINGS_TOPIC, 0)
        return [decode(bytes(one.value() or b""), own_schemas(), 0)["actor"]["id"] for one in records]

    assert registrations() == ["carol"] * len(OWN_SOURCES)
    assert made.run("init", environment=environment).returncode == 2
    # An init that was interrupted before it made the key of the ledger runs again.
    (tmp_path / "keys" / "log.pem").unlink()
    (tmp_path / "keys" / "log.pub").unlink()
    again = made.run("init", environment=environment)
    assert again.returncode == 0, again.stderr
    assert len(registrations()) == len(OWN_SOURCES)
