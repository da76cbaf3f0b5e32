"""The entries by which the log key changes: what counts, and what a list lacks or states otherwise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from grantledger.base.times import EPOCH
from grantledger.kafka.publisher import Record, signature_headers
from grantledger.ledger.entry import encode_headers
from grantledger.ledger.key_change import (
    SUBJECT,
    KeyChange,
    key_change,
    missing_keys,
    own_log_of,
    stated,
    unfounded,
)
from grantledger.ledger.keys import LocalSigner, LogKey, LogKeys
from grantledger.ledger.source_keys import SignedRecord, SourceKeys
from grantledger.ledger.source_signature import SourceSigner
from grantledger.runtime.source_keys import operator_event, registration, source_key
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import FINDINGS_TOPIC, RegisteredSource
from grantledger.schemas.own_sources import OPERATOR

DEPLOYMENT = "test.example"
OWN = f"{DEPLOYMENT}/access.findings/0/0"
SIZES = {f"{DEPLOYMENT}/access.lifecycle/0/0": 5, f"{DEPLOYMENT}/anchors/0/0": 9}
OLD, NEW, THIRD = (LocalSigner.generate().public_key for _ in range(3))
OPERATOR_KEY = LocalSigner.generate()


def signed(event: Any, signer: LocalSigner | None = OPERATOR_KEY) -> SignedRecord:
    value, key = EventEncoder().encode(event), event.key
    by = SourceSigner(DEPLOYMENT, signer) if signer is not None else None
    headers = encode_headers(signature_headers(by, Record(FINDINGS_TOPIC, value, key)) or [])
    return SignedRecord(FINDINGS_TOPIC, key.encode(), value, headers, int(datetime.now(UTC).timestamp() * 1000))


def sources() -> SourceKeys:
    keys = (source_key(OPERATOR_KEY.public_key, EPOCH),)
    known, itself = SourceKeys(DEPLOYMENT), RegisteredSource(OPERATOR, DEPLOYMENT, None, keys, initial=True)
    assert known.learn(signed(registration(DEPLOYMENT, itself, person="alice", reason="init")))
    return known


def change_event(raw: bytes, **fields: Any) -> Any:
    return operator_event("key.changed", DEPLOYMENT, SUBJECT, "alice", reason="yearly", raw=raw, **fields)


RAW = stated(LogKey(NEW, {**SIZES, OWN: 30}), OWN)


def test_a_change_that_the_operator_signed_counts() -> None:
    found = key_change(signed(change_event(RAW)), OWN, 28, sources())
    assert found == KeyChange(OWN, 28, LogKey(NEW, {**SIZES, OWN: 30}))
    assert OWN.encode() not in RAW


@pytest.mark.parametrize("signer", [None, LocalSigner.generate()])
def test_nobody_else_changes_the_key(signer: LocalSigner | None) -> None:
    assert key_change(signed(change_event(RAW), signer), OWN, 28, sources()) is None


@pytest.mark.parametrize("raw", [b"", b"\xff", RAW + b"\n", b"x" + RAW, stated(LogKey(NEW, {**SIZES, OWN: 30}), "")])
def test_other_contents_change_nothing(raw: bytes) -> None:
    assert key_change(signed(change_event(raw)), OWN, 28, sources()) is None


def test_other_records_change_nothing() -> None:
    record = signed(change_event(RAW))
    other = operator_event("payload.erased", DEPLOYMENT, SUBJECT, "alice", reason="law", raw=RAW)
    empty, nonsense = record._replace(value=None), record._replace(value=b"nonsense")
    for one in (empty, nonsense, record._replace(key=b"x"), signed(other)):
        assert key_change(one, OWN, 28, sources()) is None
    assert key_change(record, OWN, 28, SourceKeys(DEPLOYMENT)) is None


FIRST = KeyChange(OWN, 28, LogKey(NEW, {**SIZES, OWN: 30}))
LISTED = LogKeys((LogKey(OLD), FIRST.key))


def test_a_listed_key_needs_an_entry_with_the_same_sizes_under_the_key_before() -> None:
    assert unfounded(LISTED, 1, [FIRST]) == ""
    assert unfounded(LISTED, 1, []) == "no entry key.changed names it"
    other = replace(FIRST, key=LogKey(NEW, {**SIZES, OWN: 31}))
    assert "other first sizes" in unfounded(LISTED, 1, [other])
    assert unfounded(LISTED, 1, [other, FIRST]) == ""
    late = replace(FIRST, index=29)
    assert "not sealed under the key before it" in unfounded(LISTED, 1, [late])
    assert own_log_of(FIRST.key, DEPLOYMENT) == (OWN, 29)


def test_a_change_to_an_unknown_key_shows_an_older_list_unless_another_change_replaced_it() -> None:
    second = KeyChange(OWN, 40, LogKey(THIRD, {**SIZES, OWN: 42}))
    assert list(missing_keys(LISTED, [second, FIRST])) == [second]
    assert list(missing_keys(LISTED, [replace(second, index=20), FIRST])) == []
    later_epoch = replace(second, origin=f"{DEPLOYMENT}/access.findings/0/1", index=3)
    assert list(missing_keys(LISTED, [later_epoch, FIRST])) == [later_epoch]
