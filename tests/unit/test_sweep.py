"""The sweep's comparison, without a store: differences are published for any names of a sender."""

from __future__ import annotations

from typing import Any

import pytest

from grantledger.processors.access import SECOND
from grantledger.processors.sweep.compare import NAMES, Differences, difference, view_of_store
from grantledger.processors.watch_policy import WatchPolicy
from grantledger.schemas.access_key import access_key
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import IssuingSource, Resource

NOON = 1_772_366_400 * SECOND
FITS = 1_000_000
"""Bytes that a producer takes by default."""


def open_grant(name: str, **more: Any) -> dict[str, Any]:
    given = dict.fromkeys(
        ("tenant", "subject_id", "resource_kind", "resource_id", "entitlement", "resource_environment",
         "source_system", "source_instance", "removal_evidence"),
        "",
    )  # fmt: skip
    return {**given, "grant_id": name, "sharing": 1, "deadline_us": NOON, "given": NOON, "stretch": NOON, **more}


@pytest.mark.parametrize("name", ["x" * 3_000_000, "\0" * 3_000_000, "é" * 501, "", "\0", "\ufffd"])
@pytest.mark.parametrize("deadline", [NOON, -(1 << 63), 0])
def test_a_difference_about_any_grant_fits_into_a_record(name: str, deadline: int) -> None:
    view = view_of_store([open_grant(name, deadline_us=deadline)], WatchPolicy(), NOON + 3600 * SECOND)
    differences = Differences()
    assert differences.compare(view, {}) == ([], [])
    [(grant, deadline, by)], [] = differences.compare(view, {})
    event = difference("test", (grant, deadline), NOON, view.rows[grant], by=by)
    assert len(EventEncoder().encode(event)) + len(event.key) < FITS
    known = Differences({grant: deadline})
    assert known.compare(view, {grant: deadline}) == ([], [(grant, deadline)])


def test_a_difference_names_the_grant_and_its_access() -> None:
    row = open_grant(
        "g-1", tenant="acme", subject_id="alice", resource_kind="database", resource_id="orders", entitlement="read",
        source_system="vault", source_instance="prod",
    )  # fmt: skip
    view = view_of_store([row], WatchPolicy(), NOON + 3600 * SECOND)
    [(key, deadline)] = view.overdue.items()
    opened = difference("test", (key, deadline), NOON, view.rows[key], by="store")
    resolved = difference("test", (key, deadline), NOON, view.rows[key], resolved=True)
    for event in (opened, resolved):
        EventEncoder().encode(event)
        assert (event.tenant, event.grant_id, event.grant_source) == ("acme", "g-1", IssuingSource("vault", "prod"))
        assert (event.subject.id, event.entitlement) == ("alice", "read")
        assert event.resource == Resource("database", "orders")


def test_names_that_are_cut_stay_apart() -> None:
    view = view_of_store([open_grant("x" * 9_000 + end) for end in "ab"], WatchPolicy(), NOON + 3600 * SECOND)
    assert len(view.overdue) == 2


def test_names_that_are_not_text_are_read_like_the_watch_reads_them() -> None:
    raw = dict.fromkeys(NAMES, b"x") | {"grant_id": b"g\xff", "tenant": b"\xc0\x80", "source_system": b"a\xed\xa0\x80"}
    hexadecimal = {name: value.hex() for name, value in raw.items()}  # so does the client return such a name
    row = open_grant("", **hexadecimal, hex_names=",".join(hexadecimal.values()))
    view = view_of_store([row], WatchPolicy(), NOON + 3600 * SECOND)
    source = ("a\ufffd\ufffd\ufffd", "x")
    assert set(view.overdue) == {access_key("\ufffd\ufffd", source, "g\ufffd")}
