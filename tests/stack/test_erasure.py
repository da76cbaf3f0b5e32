"""Erasure on the embedded engine: the payload leaves every table, the row and its hashes stay, and verify agrees."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from grantledger.base.times import micros_of
from grantledger.ledger.entry import origin_of
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.schemas.catalog import event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Actor, Event, EventSource, Subject
from grantledger.sinks import states
from grantledger.sinks.clickhouse import StoreAddress, connect
from grantledger.sinks.erasure import Erasures
from support.access_store import DEPLOYMENT, SIGNER, Record, Story, columns_with, fill
from support.tamper import TamperedStore, replaced

MARKER = "marker-4711"
LIFECYCLE, FINDINGS = (origin_of(DEPLOYMENT, f"access.{name}", 0) for name in ("lifecycle", "findings"))


def erased(story: Story, place: str, taken: float) -> Event:
    event = Event(
        event_type="payload.erased",
        occurred_at=story.now,
        source=EventSource("grantledger", DEPLOYMENT, f"{place}:{taken}", "decision"),
        subject=Subject(place, "system"),
        actor=Actor("privacy-officer", "human"),
        reason="GDPR Art. 17",
        outcome="success",
    )
    return story.add(event, taken)


def told() -> Story:
    story = Story(now=datetime(2026, 3, 1, 12, tzinfo=UTC))
    registered = EventEncoder().encode(schema_registered(DEPLOYMENT, event_schema(), True, story.at(-90)))
    time_ms = micros_of(story.at(-90)) // 1000
    story.records.append(Record("access.findings", schema_key(event_schema()).encode(), registered, time_ms))
    story.give("kept", -60, 60)
    story.give(MARKER, -50, 60, subject=MARKER, reason=f"for {MARKER}", raw=f"raw {MARKER}".encode(), ticket=MARKER)
    story.give("also-kept", -40, 60)
    return story


def carry_out(data_dir: Path) -> None:
    """Erase payloads in a filled store, as the start of the store does."""
    with connect(StoreAddress(data_dir / "clickhouse")) as client:
        Erasures(client, DEPLOYMENT)


def refresh(data_dir: Path) -> None:
    """Compute the states again, and drop those from before the erasure, as the store does some seconds later."""
    with connect(StoreAddress(data_dir / "clickhouse")) as client, pytest.MonkeyPatch.context() as patched:
        patched.setattr(states, "KEEP_SECONDS", 0.0)
        refresher = states.States(client)
        while refresher.refresh():
            pass
        refresher.refresh()  # drops the former generation


def report(data_dir: Path, changed: dict[str, str] | None = None) -> list[tuple[str, int, str]]:
    with TamperedStore(data_dir / "clickhouse", DEPLOYMENT, SIGNER.public_key, None) as store:
        found: dict[str, Any] = store.verify(changed)
    return [(one["origin"], one["index"], one["check"]) for one in found["problems"] if one["check"] != "anchor"]


def rows(data_dir: Path, sql: str) -> list[dict[str, Any]]:
    with connect(StoreAddress(data_dir / "clickhouse")) as client:
        return list(client.query(sql).named_results())


def places_of(data_dir: Path, text: str) -> list[str]:
    return columns_with(text, partial(rows, data_dir))


def test_a_payload_leaves_every_table_and_the_ledger_stays_sound(tmp_path: Path) -> None:
    story = told()
    erased(story, f"{LIFECYCLE}#1", -30)
    fill(tmp_path, story.records)
    assert "entries.subject_id" in places_of(tmp_path, MARKER)
    before = rows(tmp_path, "SELECT hex(leaf_hash) AS leaf, hex(payload_hash) AS payload FROM entries ORDER BY ALL")
    carry_out(tmp_path)
    carry_out(tmp_path)
    refresh(tmp_path)
    assert places_of(tmp_path, MARKER) == []
    after = rows(tmp_path, "SELECT hex(leaf_hash) AS leaf, hex(payload_hash) AS payload FROM entries ORDER BY ALL")
    assert after == before
    [row] = rows(
        tmp_path,
        "SELECT `index`, decode_error, key IS NULL AND value IS NULL AND headers = '' AS gone FROM entries "
        "WHERE erased_at IS NOT NULL",
    )
    assert (row["index"], row["decode_error"][:7], row["gone"]) == (1, "erased:", 1)
    assert report(tmp_path) == []
    assert rows(tmp_path, "SELECT count() AS c FROM rejected_events") == [{"c": 0}]


def test_an_entry_emptied_without_an_erasure_on_record_is_tampered(tmp_path: Path) -> None:
    story = told()
    erased(story, f"{LIFECYCLE}#1", -30)
    fill(tmp_path, story.records, states=False)
    carry_out(tmp_path)
    another = f"origin = '{LIFECYCLE}' AND `index` IN (1, 2)"
    gone = {
        name: f"(SELECT any({name}) FROM entries WHERE erased_at IS NOT NULL)"
        for name in ("headers", "erased_at", "decode_error", "event_type", "subject_id")
    }
    changed = replaced("entries", another, key="NULL", value="NULL", **gone)
    assert report(tmp_path, {"entries": changed}) == [(LIFECYCLE, 2, "erased")]


def test_entries_that_verification_needs_are_never_erased_and_invalid_places_are_skipped(tmp_path: Path) -> None:
    story = told()
    erased(story, f"{LIFECYCLE}#0", -30)
    for number, place in enumerate(
        (f"{FINDINGS}#0", f"{FINDINGS}#1", f"{LIFECYCLE}#99", f"{LIFECYCLE}#x", "nothing", f"{LIFECYCLE}#-1")
    ):
        erased(story, place, -29 + number)
    fill(tmp_path, story.records, states=False)
    carry_out(tmp_path)
    found = rows(tmp_path, "SELECT origin, `index` FROM entries WHERE erased_at IS NOT NULL")
    assert [(row["origin"], row["index"]) for row in found] == [(LIFECYCLE, 0)]
    assert report(tmp_path) == []
