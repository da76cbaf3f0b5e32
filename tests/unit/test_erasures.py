"""Which stored batches an erasure concerns. A fake client stands in for ClickHouse; tests/stack has the real one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from grantledger.schemas.arrow import DECODED_SCHEMA
from grantledger.sinks.erasure import _EMPTIED, Erasures

DEPLOYMENT = "test.example"
LIFECYCLE = f"{DEPLOYMENT}/access.lifecycle/0/0"
FINDINGS = f"{DEPLOYMENT}/access.findings/0/0"


class Fake:
    """Has rows (origin, index) with their type; remembers what is erased."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], str] = {}
        self.erased: list[tuple[str, int]] = []
        self.queries = 0

    def query(self, sql: str, parameters: dict[str, Any]) -> SimpleNamespace:
        self.queries += 1
        if "subject_id" in sql:
            return SimpleNamespace(result_rows=[])
        places = [(parameters["origin"], index) for index in parameters["indices"]]
        rows = [(at[1], self.rows[at], at in self.erased) for at in places if at in self.rows]
        return SimpleNamespace(result_rows=rows)

    def command(self, sql: str, parameters: dict[str, Any], settings: dict[str, int]) -> None:
        assert sql.startswith("ALTER TABLE entries UPDATE")
        assert settings == {"mutations_sync": 2}
        self.erased += [(parameters["origin"], index) for index in parameters["indices"]]


def batch(
    origin: str, first: int, *events: tuple[str, str], decode_error: bytes = b"", signature: bytes = b"valid"
) -> pa.Table:
    return pa.table(
        {
            "origin": [origin] * len(events),
            "index": pa.array(range(first, first + len(events)), pa.uint64()),
            "event_type": pa.array([kind.encode() for kind, _ in events]),
            "subject_id": pa.array([subject.encode() for _, subject in events]),
            "decode_error": pa.array([decode_error] * len(events)),
            "signature": pa.array([signature] * len(events)),
        }
    )


GRANT = ("grant.activated", "alice")


def test_an_entry_that_is_stored_after_its_erasure_is_erased_then() -> None:
    client: Any = Fake()
    erasures = Erasures(client, DEPLOYMENT)
    erasures.follow(batch(FINDINGS, 0, ("payload.erased", f"{LIFECYCLE}#7")), client)
    assert client.erased == []
    client.rows = {(LIFECYCLE, index): "grant.activated" for index in range(10)}
    asked = client.queries
    erasures.follow(batch(LIFECYCLE, 0, *[GRANT] * 7), client)
    assert client.queries == asked, "a batch that no erasure concerns costs a query"
    erasures.follow(batch(LIFECYCLE, 7, *[GRANT] * 3), client)
    assert client.erased == [(LIFECYCLE, 7)]
    erasures.follow(batch(FINDINGS, 1, ("payload.erased", f"{LIFECYCLE}#7")), client)
    assert client.erased == [(LIFECYCLE, 7)], "erased twice"


def test_only_the_log_of_findings_orders_erasures() -> None:
    client: Any = Fake()
    client.rows = {(LIFECYCLE, 0): "grant.activated"}
    erasures = Erasures(client, DEPLOYMENT)
    erasures.follow(batch(LIFECYCLE, 1, ("payload.erased", f"{LIFECYCLE}#0")), client)
    assert client.erased == []


@pytest.mark.parametrize(
    "wrong", [{"signature": b"missing"}, {"signature": b"invalid"}, {"decode_error": b"event_invalid: actor"}]
)
def test_only_signed_and_valid_erasures_count(wrong: dict[str, bytes]) -> None:
    client: Any = Fake()
    client.rows = {(LIFECYCLE, 0): "grant.activated"}
    Erasures(client, DEPLOYMENT).follow(batch(FINDINGS, 1, ("payload.erased", f"{LIFECYCLE}#0"), **wrong), client)
    assert client.erased == []


@pytest.mark.parametrize(
    "named", [f"{LIFECYCLE}#٣", f"{LIFECYCLE}#03", f"{LIFECYCLE}#{1 << 64}", "other.example/access.lifecycle/0/0#3"]
)
def test_only_exact_names_of_entries_of_this_deployment_count(named: str) -> None:
    client: Any = Fake()
    client.rows = {(f"{name}/access.lifecycle/0/0", 3): "grant.activated" for name in (DEPLOYMENT, "other.example")}
    erasures = Erasures(client, DEPLOYMENT)
    erasures.follow(batch(FINDINGS, 0, ("payload.erased", named)), client)
    assert client.erased == []


def test_every_decoded_column_is_emptied() -> None:
    names = {part.split(" = ")[0] for part in _EMPTIED.split(", ") if " = " in part}
    assert names == {"key", "value", "headers", "erased_at", "signature", *DECODED_SCHEMA.names}
