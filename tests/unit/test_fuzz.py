"""Every field of every type, hostile, through every process (tests/fuzz has the longer campaign)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grantledger.schemas.catalog import event_schema
from grantledger.schemas.rules import EVENT_TYPES
from support.fuzz_paths import NOW_MS, follow
from support.hostile import EVENTS, framed
from support.mutated import mutated

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())
SLOW = "GRANTLEDGER_TEST_SLOW" in os.environ


@settings(max_examples=3000 if SLOW else 30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_hostile_fields_stop_nothing(events: list[dict[str, Any]]) -> None:
    follow([framed(event) for event in events])


@pytest.mark.parametrize("seed", range(100, 200 if SLOW else 102))
def test_mutated_records_stop_nothing(seed: int) -> None:
    follow([value for value in mutated(event_schema(), seed, 100) if value is not None])


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus(path: Path) -> None:
    follow([path.read_bytes()])


@pytest.mark.parametrize("event_type", sorted(EVENT_TYPES))
def test_every_type_with_times_at_the_ends_of_the_calendar(event_type: str) -> None:
    for micros in (-(2**63), 2**63 - 1, -62_135_596_800_000_000, 253_402_300_799_999_999, NOW_MS * 1000):
        follow([framed(_plain(event_type, micros))])


def _plain(event_type: str, micros: int) -> dict[str, Any]:
    source = {"system": "s", "instance": "i", "native_id": "n", "native_type": "t", "seq": 2**63 - 1, "sender": "p"}
    return {
        "event_id": "e", "event_type": event_type, "occurred_at": micros, "source": source, "tenant": "default",
        "subject": {"id": "s", "kind": "human"}, "actor": {"id": "a", "kind": "human"}, "entitlement": "rw",
        "resource": {"kind": "k", "id": "r", "environment": "e"}, "grant_id": "g", "grant_id_kind": "native",
        "request_id": "q", "session_id": "z", "starts_at": micros, "expires_at": micros, "requested_seconds": micros,
        "outcome": "success", "expiry_source": "native", "removal_evidence": "confirmed", "received_at": micros,
        "approvals": [{"reviewer": "s", "decision": "approved", "at": micros, "forced": False}],
        "finding": {"rule": "overdue", "key": "g", "severity": "critical", "deadline": micros, "evidence": "{}"},
        "action": {"command": "c", "args": [], "exit_code": micros, "redacted": False, "truncated": False},
        "raw_sha256": bytes(32), "salt": bytes(16),
    }  # fmt: skip
