"""Which records of registered sources are believed: by whom they are signed, for what, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from grantledger.kafka.cluster import Cluster
from grantledger.kafka.sealed_log import SealedLogReader, SealedLogs, SealedLogStoppedError
from grantledger.kafka.source_keys_reader import check_registrations
from grantledger.ledger.entry import NO_HEADERS, encode_headers
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.signature_mistakes import mistake_in
from grantledger.ledger.source_keys import SignedRecord, SourceKeys
from grantledger.ledger.source_signature import HEADER, SourceSigner, key_id_of, signature_in, signed_bytes
from grantledger.schemas.event import NEVER_ERASED, Event, EventSource, Finding, Subject
from grantledger.schemas.own_sources import OPERATOR
from grantledger.schemas.topics import topic_specs
from support.events import event
from support.sources import Registrar, at_ms, key_of, record_of, registered

HERE, WATCH = "test.example", "grantledger-watch"
HOUR = 3_600_000


def grant(system: str = "vault", **changes: object) -> Event:
    return replace(event("grant.activated", 1), source=EventSource(system, "eu-1", "lease/1", "lease"), **changes)


def status(keys: SourceKeys, one: Event, record: SignedRecord) -> str:
    return keys.status(record, one.source.system.encode(), one.source.instance.encode(), one.tenant.encode())


@pytest.fixture
def registrar() -> Registrar:
    made = Registrar(HERE)
    made.init()
    return made


def test_the_bytes_that_are_signed() -> None:
    signer = LocalSigner.generate()
    [(name, value)] = SourceSigner("d.example", signer).headers("access.lifecycle", "k", b"v")
    message = b"GLS1\0\0\0\x09d.example\0\0\0\x10access.lifecycle\0\0\0\x01k\0\0\0\x01v"
    assert signed_bytes("d.example", "access.lifecycle", b"k", b"v") == message
    assert (name, value[:8]) == ("grantledger-signature", key_id_of(signer.public_key))
    Ed25519PublicKey.from_public_bytes(signer.public_key).verify(value[8:], message)
    assert signed_bytes("d", "t", None, None) == b"GLS1\0\0\0\x01d\0\0\0\x01t\xff\xff\xff\xff\xff\xff\xff\xff"


def test_the_first_signature_header_counts() -> None:
    assert signature_in(NO_HEADERS) is None and signature_in(b"") is None
    assert signature_in(encode_headers([("other", b"x")])) is None
    assert signature_in(encode_headers([("other", None), (HEADER, b"a"), (HEADER, b"b")])) == b"a"
    assert signature_in(encode_headers([(HEADER, None)])) == b""
    assert signature_in(encode_headers([(HEADER, b"abc")])[:-2]) == b"a"  # cut: it is invalid
    assert signature_in(b"\0\0\0\x02" + HEADER.encode()) == b""


def test_a_registered_source_must_sign(registrar: Registrar) -> None:
    signer, one = LocalSigner.generate(), grant()
    assert registrar.register("vault", "eu-1", [key_of(signer)], 0)
    good = record_of(one, signer, HERE, HOUR)
    forged = good._replace(headers=record_of(replace(one, reason="other"), signer, HERE, HOUR).headers)
    for record, expected in (
        (good, "valid"),
        (record_of(one, None, HERE, HOUR), "missing"),
        (record_of(one, LocalSigner.generate(), HERE, HOUR), "invalid"),
        (record_of(one, signer, "other.example", HOUR), "invalid"),
        (record_of(one, signer, HERE, HOUR, signed_topic="access.activity"), "invalid"),
        (forged, "invalid"),
        (good._replace(key=b"another"), "invalid"),
        (good._replace(headers=encode_headers([(HEADER, b"\0" * 72)])), "invalid"),
        (good._replace(headers=encode_headers([(HEADER, b"short")])), "invalid"),
    ):
        assert status(registrar.keys, one, record) == expected
    others = grant("terraform")
    assert status(registrar.keys, others, record_of(others, None, HERE, HOUR)) == "unregistered"
    elsewhere = replace(one, source=replace(one.source, instance="us-1"))
    assert status(registrar.keys, elsewhere, record_of(elsewhere, None, HERE, HOUR)) == "unregistered"


def test_a_registration_is_in_force_a_minute_later(registrar: Registrar) -> None:
    signer, one = LocalSigner.generate(), grant()
    registrar.register("vault", "eu-1", [key_of(signer)], HOUR)
    assert status(registrar.keys, one, record_of(one, None, HERE, HOUR + 59_999)) == "unregistered"
    assert status(registrar.keys, one, record_of(one, None, HERE, HOUR + 60_000)) == "missing"


def test_a_key_is_valid_from_and_until(registrar: Registrar) -> None:
    signer, one = LocalSigner.generate(), grant()
    registrar.register("vault", "eu-1", [key_of(signer, at_ms(HOUR), at_ms(2 * HOUR))], 0)
    times = {HOUR - 1: "invalid", HOUR: "valid", 2 * HOUR - 1: "valid", 2 * HOUR: "invalid"}
    for time, expected in times.items():
        assert status(registrar.keys, one, record_of(one, signer, HERE, time)) == expected


def test_a_rotated_key(registrar: Registrar) -> None:
    old, new, one = LocalSigner.generate(), LocalSigner.generate(), grant()
    registrar.register("vault", "eu-1", [key_of(old)], 0)
    registrar.register("vault", "eu-1", [key_of(old, valid_until=at_ms(3 * HOUR)), key_of(new)], HOUR)
    both = 2 * HOUR
    assert status(registrar.keys, one, record_of(one, new, HERE, HOUR)) == "invalid"
    assert {status(registrar.keys, one, record_of(one, by, HERE, both)) for by in (old, new)} == {"valid"}
    assert status(registrar.keys, one, record_of(one, old, HERE, 3 * HOUR)) == "invalid"
    registrar.register("vault", "eu-1", [key_of(new)], 3 * HOUR)  # the old one was stolen
    assert status(registrar.keys, one, record_of(one, old, HERE, 2 * HOUR)) == "valid"  # what it signed before stays


def test_a_removed_source_is_unregistered_again(registrar: Registrar) -> None:
    signer, one = LocalSigner.generate(), grant()
    registrar.register("vault", "eu-1", [key_of(signer)], 0)
    registrar.register("vault", "eu-1", [], HOUR, removed=True)
    assert status(registrar.keys, one, record_of(one, None, HERE, HOUR)) == "missing"
    assert status(registrar.keys, one, record_of(one, None, HERE, HOUR + 60_000)) == "unregistered"


def test_a_source_of_one_tenant(registrar: Registrar) -> None:
    signer = LocalSigner.generate()
    registrar.register("vault", "eu-1", [key_of(signer)], 0, tenant="acme")
    own, other = grant(tenant="acme"), grant(tenant="globex")
    assert status(registrar.keys, own, record_of(own, signer, HERE, HOUR)) == "valid"
    assert status(registrar.keys, other, record_of(other, signer, HERE, HOUR)) == "invalid"


def test_only_the_operator_registers(registrar: Registrar) -> None:
    signer, other = LocalSigner.generate(), Registrar(HERE)
    other.init()  # has its own operator key
    stolen = registered(HERE, "vault", "eu-1", [key_of(signer)])
    for forged in (
        record_of(stolen, other.operator, HERE, HOUR),
        record_of(stolen, signer, HERE, HOUR),
        record_of(stolen, None, HERE, HOUR),
        record_of(stolen, registrar.operator, "other.example", HOUR),
        record_of(replace(stolen, source=EventSource(WATCH, HERE, "x", "decision")), registrar.operator, HERE, HOUR),
    ):
        assert not registrar.keys.learn(forged)
    takeover = registered(HERE, OPERATOR, HERE, [key_of(other.operator)], initial=True)
    assert not registrar.keys.learn(record_of(takeover, other.operator, HERE, HOUR))
    assert registrar.keys.learn(record_of(stolen, registrar.operator, HERE, HOUR))
    assert not registrar.keys.learn(record_of(stolen, registrar.operator, HERE, HOUR))  # read again


def test_the_first_registration_of_the_operator_signs_itself() -> None:
    keys, signer = SourceKeys(HERE), LocalSigner.generate()
    first = registered(HERE, OPERATOR, HERE, [key_of(signer)], initial=True)
    assert not keys.learn(record_of(first, LocalSigner.generate(), HERE, 0))
    assert not keys.learn(record_of(registered(HERE, OPERATOR, HERE, [key_of(signer)]), signer, HERE, 0))
    assert not keys.learn(record_of(registered(HERE, "vault", "eu-1", [key_of(signer)]), signer, HERE, 0))
    assert not keys.complete
    assert keys.learn(record_of(first, signer, HERE, 0))
    assert keys.complete


def test_only_init_registers_for_the_past(registrar: Registrar) -> None:
    signer, one = LocalSigner.generate(), grant()
    registrar.register("vault", "eu-1", [key_of(signer)], HOUR, initial=True)
    assert status(registrar.keys, one, record_of(one, None, HERE, HOUR)) == "unregistered"


def test_names_of_the_pipeline_and_its_topics_are_never_unregistered(registrar: Registrar) -> None:
    signer = LocalSigner.generate()
    finding = replace(
        event("finding.opened", 1),
        source=EventSource(WATCH, HERE, "n", "finding"),
        subject=Subject("g"),
        finding=Finding("overdue", "g", "critical"),
    )
    assert status(registrar.keys, finding, record_of(finding, None, HERE, HOUR)) == "missing"
    assert status(registrar.keys, finding, record_of(finding, signer, HERE, HOUR)) == "invalid"
    removal = grant("grantledger-enforcer")
    assert status(registrar.keys, removal, record_of(removal, None, HERE, HOUR)) == "missing"
    foreign = replace(finding, source=EventSource("vault", "eu-1", "n", "finding"))
    assert status(registrar.keys, foreign, record_of(foreign, None, HERE, HOUR)) == "missing"
    registrar.register("vault", "eu-1", [key_of(signer)], 0)
    assert status(registrar.keys, foreign, record_of(foreign, signer, HERE, HOUR)) == "invalid"
    assert status(SourceKeys(HERE), finding, record_of(finding, None, HERE, HOUR)) == "unregistered"  # before init


def test_replaying_a_command_as_a_finding_or_the_other_way_round(registrar: Registrar) -> None:
    signer = LocalSigner.generate()
    registrar.register(WATCH, HERE, [key_of(signer)], 0, initial=True)
    command = replace(
        event("revoke.requested", 1),
        source=EventSource(WATCH, HERE, "n", "finding"),
        finding=Finding("overdue", "g", "critical"),
    )
    assert status(registrar.keys, command, record_of(command, signer, HERE, HOUR)) == "valid"
    moved = record_of(command, signer, HERE, HOUR, topic="access.commands", signed_topic="access.findings")
    assert status(registrar.keys, command, moved) == "invalid"


@pytest.mark.parametrize("damage", ["keys", "key_id", "public_key", "tenant"])
def test_a_registration_that_makes_no_sense_is_ignored(registrar: Registrar, damage: str) -> None:
    signer = LocalSigner.generate()
    key = key_of(signer)
    changed = {"key_id": replace(key, key_id="00" * 8), "public_key": replace(key, public_key=b"short")}
    one = registered(HERE, "vault", "eu-1", [changed.get(damage, key)])
    if damage in ("keys", "tenant"):
        datum = one.to_datum()
        datum["registered_source"][damage] = 7
        assert not registrar.keys.add(record_of(one, registrar.operator, HERE, 0), datum)
    else:
        assert not registrar.keys.learn(record_of(one, registrar.operator, HERE, 0))


def test_an_old_registration_that_is_sent_again_changes_nothing(registrar: Registrar) -> None:
    """A repeated registration does not restore an old key, and a repeated removal does not remove the source."""
    old, new = LocalSigner.generate(), LocalSigner.generate()
    stories = [
        registered(HERE, "vault", "eu-1", [key_of(old)]),
        registered(HERE, "vault", "eu-1", [], removed=True),
        registered(HERE, "vault", "eu-1", [key_of(new)]),
    ]
    sent = [replace(one, event_id="", source=replace(one.source, native_id=str(at))) for at, one in enumerate(stories)]
    for at, one in enumerate(sent):
        assert registrar.keys.learn(record_of(one, registrar.operator, HERE, at * HOUR))
    for at, one in enumerate(sent, 4):
        assert not registrar.keys.learn(record_of(one, registrar.operator, HERE, at * HOUR))
    late = grant()
    assert status(registrar.keys, late, record_of(late, new, HERE, 9 * HOUR)) == "valid"
    assert status(registrar.keys, late, record_of(late, old, HERE, 9 * HOUR)) == "invalid"
    assert status(registrar.keys, late, record_of(late, None, HERE, 9 * HOUR)) == "missing"


class WholeLog:
    """A reader that found the beginning of the log, or not."""

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole

    def check_whole(self) -> None:
        if not self.whole:
            raise SealedLogStoppedError("the beginning is missing")


@pytest.mark.parametrize(
    ("signs", "whole", "complete", "stops"),
    [(True, True, True, ""), (False, True, False, ""), (True, True, False, "does not register"),
     (True, False, True, "beginning"), (False, False, True, "beginning")],
)  # fmt: skip
def test_missing_registrations_stop_a_process(
    registrar: Registrar, signs: bool, whole: bool, complete: bool, stops: str
) -> None:
    """Otherwise unsigned events of a registered source would count, once retention has deleted its registration."""
    signer = SourceSigner(HERE, LocalSigner.generate()) if signs else None
    logs = SealedLogs(Cluster({}), HERE, LogKeys.single(bytes(32)), print, signer)
    keys = registrar.keys if complete else SourceKeys(HERE)
    findings = cast(SealedLogReader, WholeLog(whole=whole))
    if stops:
        with pytest.raises(SealedLogStoppedError, match=stops):
            check_registrations(logs, findings, keys)
    else:
        check_registrations(logs, findings, keys)


def test_no_retention_deletes_registrations() -> None:
    kept = {spec.name: spec.config["retention.ms"] for spec in topic_specs(4, 30, 7) if "sealed" in spec.name}
    assert kept == {
        "access.lifecycle.sealed": str(30 * 86_400_000), "access.activity.sealed": str(30 * 86_400_000),
        "access.queries.sealed": str(7 * 86_400_000), "access.findings.sealed": "-1",
    }  # fmt: skip
    assert {"source.registered", "schema.registered"} <= NEVER_ERASED


@pytest.mark.parametrize(
    ("deployment", "topic", "key", "said"),
    [
        ("", None, None, f"the signer has the deployment name '', not '{HERE}'"),
        (HERE.partition(".")[0], None, None, f"the signer has the deployment name '{HERE.partition('.')[0]}', not"),
        (HERE, "eu-access.lifecycle", None, "it signs the topic 'eu-access.lifecycle', with the topic prefix"),
        (HERE, "access.activity", None, "it signs the topic 'access.activity'; the record is in 'access.lifecycle'"),
        (HERE, None, b"", "it signs another key of the record"),
        ("elsewhere.example", None, None, f"another deployment name than '{HERE}', signs other bytes, or"),
    ],
)
def test_a_wrong_signature_is_explained(deployment: str, topic: str | None, key: bytes | None, said: str) -> None:
    signer, registrar = LocalSigner.generate(), Registrar(HERE)
    registrar.init()
    registrar.register("vault", "eu-1", [key_of(signer)], 0)
    registrar.keys.topic_prefix = "eu-"
    record = SignedRecord("access.lifecycle", b"g-1", b"value", NO_HEADERS, HOUR)
    message_key = record.key if key is None else key
    headers = SourceSigner(deployment, signer).signer.sign(
        signed_bytes(deployment, topic or record.topic, message_key, record.value)
    )
    signed = record._replace(headers=encode_headers([(HEADER, key_id_of(signer.public_key) + headers)]))
    assert registrar.keys.status(signed, b"vault", b"eu-1", b"default") == "invalid"
    assert said in mistake_in(registrar.keys, signed, b"vault", b"eu-1", b"default")


def test_a_missing_signature_and_a_wrong_key_are_explained() -> None:
    signer, other, registrar = LocalSigner.generate(), LocalSigner.generate(), Registrar(HERE)
    registrar.init()
    registrar.register("vault", "eu-1", [key_of(signer, valid_until=at_ms(HOUR))], 0, tenant="acme")
    plain = SignedRecord("access.lifecycle", b"g-1", b"value", NO_HEADERS, HOUR - 1)

    def mistake(by: LocalSigner | None, time_ms: int = HOUR - 1, tenant: bytes = b"acme", size: int = 72) -> str:
        headers = SourceSigner(HERE, by).headers(plain.topic, plain.key, plain.value) if by else []
        cut = encode_headers([(name, value[:size]) for name, value in headers])
        record = plain._replace(headers=cut if by else NO_HEADERS, append_time_ms=time_ms)
        return mistake_in(registrar.keys, record, b"vault", b"eu-1", tenant)

    assert mistake(None) == "the record has no signature"
    assert mistake(signer, size=9) == "the signature has 9 bytes, not 72"
    assert mistake(other).startswith(
        f"the key {key_id_of(other.public_key).hex()} is not one of this source (registered:"
    )
    assert "was not valid then: it is valid from 1970-01-01T00:00:00+00:00, until 1970" in mistake(signer, HOUR)
    assert mistake(signer, tenant=b"other") == "the source is registered for another tenant"
