"""Schemas evolve only compatibly: the current ones fit all released ones, and what would not fit is refused by name."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from fastavro.utils import generate_many

from grantledger.schemas.catalog import load, released
from support.compatibility import incompatibilities

NAMES = ("event", "sealed_batch", "anchor", "receipt")
Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("name", NAMES)
def test_the_current_schema_fits_every_released_one(name: str) -> None:
    versions = released(name)
    assert list(versions) == list(range(1, len(versions) + 1))
    assert incompatibilities(load(name), versions) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_current_schema_is_the_last_released_one(name: str) -> None:
    """A changed schema is released with the change: a copy of it as the next version."""
    assert load(name) == list(released(name).values())[-1]


def test_versions_are_in_order_of_their_numbers() -> None:
    assert released("nothing") == {}


def field(schema: dict[str, Any], path: str) -> dict[str, Any]:
    node: Any = schema
    for name in path.split("."):
        while "fields" not in node:
            node = next(one for one in node if isinstance(one, dict)) if isinstance(node, list) else node
            node = node.get("items", node)
            node = node["type"] if "fields" not in node and isinstance(node.get("type"), dict | list) else node
        found = next(one for one in node["fields"] if one["name"] == name)
        node = found["type"]
    return found


def drop(path: str) -> Change:
    parent, _, name = path.rpartition(".")

    def change(schema: dict[str, Any]) -> None:
        fields = field(schema, parent)["type"]["fields"] if parent else schema["fields"]
        fields[:] = [one for one in fields if one["name"] != name]

    return change


def retype(path: str, new: Any) -> Change:
    return lambda schema: field(schema, path).update(type=new)


def edit(path: str, **changes: Any) -> Change:
    return lambda schema: field(schema, path).update(changes)


def add(**new: Any) -> Change:
    return lambda schema: schema["fields"].append(new)


def no_default(path: str) -> Change:
    return lambda schema: field(schema, path).pop("default")


MICROS = {"type": "long", "logicalType": "timestamp-micros"}
REFUSED: dict[str, tuple[Change, str]] = {
    "a required field is removed": (drop("event_id"), "AccessEvent.event_id"),
    "a required field of a record inside is removed": (drop("source.system"), "AccessEvent.source.system"),
    "an optional field is removed": (drop("ticket"), "AccessEvent.ticket"),
    "an optional field of a record inside is removed": (drop("source.seq"), "AccessEvent.source.seq"),
    "a new field has no default": (add(name="extra", type="string"), "AccessEvent.extra"),
    "a new nullable field has no default": (add(name="extra", type=["null", "string"]), "AccessEvent.extra"),
    "a type is narrowed": (retype("requested_seconds", ["null", "int"]), "AccessEvent.requested_seconds"),
    "a type is widened, which old readers do not understand": (
        retype("requested_seconds", ["null", "double"]),
        "AccessEvent.requested_seconds",
    ),
    "null is no longer allowed": (edit("reason", type="string", default=""), "AccessEvent.reason"),
    "null is newly allowed": (edit("tenant", type=["null", "string"], default=None), "AccessEvent.tenant"),
    "a branch is added to a union": (retype("reason", ["null", "string", "long"]), "AccessEvent.reason"),
    "text becomes bytes": (retype("event_type", "bytes"), "AccessEvent.event_type"),
    "bytes become text": (retype("raw", ["null", "string"]), "AccessEvent.raw"),
    "text becomes a number": (retype("event_type", "long"), "AccessEvent.event_type"),
    "a list becomes a text": (edit("approvals", type="string", default=""), "AccessEvent.approvals"),
    "members of a list change": (
        retype("action", ["null", {"type": "record", "name": "Action", "fields": [
            {"name": "args", "type": {"type": "array", "items": "long"}, "default": []}]}]),
        "AccessEvent.action.args[]",
    ),
    "a field is renamed": (edit("ticket", name="incident"), "AccessEvent.ticket"),
    "a required field is renamed": (edit("actor", name="principal"), "AccessEvent.actor"),
    "a field is renamed, with an alias that our readers do not know": (
        edit("actor", name="principal", aliases=["actor"]),
        "AccessEvent.actor",
    ),
    "the record is renamed": (lambda schema: schema.update(name="Event"), "AccessEvent"),
    "a record inside is renamed": (
        lambda schema: field(schema, "source")["type"].update(name="Origin"),
        "AccessEvent.source",
    ),
    "the namespace changes": (lambda schema: schema.update(namespace="ledger"), "AccessEvent"),
    "the order of a union leaves its default behind": (retype("reason", ["string", "null"]), "AccessEvent.reason"),
    "a default is of another type": (edit("tenant", default=5), "AccessEvent.tenant"),
    "a default is taken away, and old data lack the field": (
        lambda schema: (drop("ticket")(schema), add(name="ticket2", type="string")(schema)),
        "AccessEvent.ticket2",
    ),
    "a time is no longer a time": (retype("occurred_at", "long"), "AccessEvent.occurred_at"),
    "a time counts in other units": (
        retype("expires_at", ["null", {"type": "long", "logicalType": "timestamp-millis"}]),
        "AccessEvent.expires_at",
    ),
    "a number becomes a time": (retype("requested_seconds", ["null", MICROS]), "AccessEvent.requested_seconds"),
    "a fixed size changes": (
        retype("salt", {"type": "fixed", "name": "Salt", "size": 32}),
        "AccessEvent.salt",
    ),
    "a fixed type is renamed": (
        retype("salt", {"type": "fixed", "name": "Pepper", "size": 16}),
        "AccessEvent.salt",
    ),
    "a time in a list of records changes": (
        lambda schema: next(
            one for one in field(schema, "approvals")["type"]["items"]["fields"] if one["name"] == "at"
        ).update(type=["null", "long"]),
        "AccessEvent.approvals[].at",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_incompatible_changes_are_reported(what: str) -> None:
    change, where = REFUSED[what]
    schema = copy.deepcopy(load("event"))
    change(schema)
    problems = incompatibilities(schema, released("event"))
    assert any(problem.startswith(f"{where}: ") for problem in problems), problems


ALLOWED: dict[str, Change] = {
    "nothing": lambda schema: None,
    "a new field with a default": add(name="extra", type="string", default=""),
    "a new nullable field": add(name="extra", type=["null", "string"], default=None),
    "a new record with a default": add(
        name="extra", type=["null", {"type": "record", "name": "Extra", "fields": [{"name": "x", "type": "Salt"}]}],
        default=None,
    ),
    "a new field of a record inside": lambda schema: field(schema, "source")["type"]["fields"].append(
        {"name": "region", "type": ["null", "string"], "default": None}
    ),
    "a default is put in": edit("event_type", default=""),
    "another default": edit("outcome", default="pending"),
    "another order of fields": lambda schema: schema["fields"].insert(0, schema["fields"].pop(4)),
    "other words of documentation": lambda schema: schema.update(doc="Other words."),
    "a type named in full": lambda schema: schema["fields"].append(
        {"name": "pepper", "type": ["null", "grantledger.Salt"], "default": None}
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ALLOWED)
def test_compatible_changes_are_accepted_and_read_both_ways(what: str) -> None:
    schema = copy.deepcopy(load("event"))
    ALLOWED[what](schema)
    assert incompatibilities(schema, released("event")) == []
    _read(schema, load("event"))
    _read(load("event"), schema)


def _read(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    """Read generated data as another implementation resolves the two schemas."""
    written, read = fastavro.parse_schema(copy.deepcopy(writer)), fastavro.parse_schema(copy.deepcopy(reader))
    for datum in generate_many(written, 3):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, written, datum)
        out.seek(0)
        fastavro.schemaless_reader(out, written, read)


def test_every_released_version_counts() -> None:
    first = record({"name": "a", "type": "string"})
    second = record({"name": "a", "type": "string"}, {"name": "b", "type": "string", "default": ""})
    third = record({"name": "a", "type": "string"}, {"name": "b", "type": "string"})
    assert incompatibilities(third, {1: first, 2: second}) == ["R.b: missing in version 1 and without a default"]


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields)}


@pytest.mark.parametrize(
    ("kind", "default", "good"),
    [
        ("string", "", True),
        (["null", "string"], None, True),
        (["null", "string"], "", False),
        ("long", True, False),
        ("boolean", False, True),
        ("double", 1, True),
        ({"type": "array", "items": "long"}, [1, "2"], False),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, "b", False),
        ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "long"}]}, {"x": 1}, True),
        ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "long"}]}, {}, False),
        ({"type": "record", "name": "S", "fields": [{"name": "x", "type": "long", "default": 0}]}, {}, True),
    ],
)
def test_defaults(kind: Any, default: Any, good: bool) -> None:
    found = incompatibilities(record({"name": "f", "type": kind, "default": default}), {})
    assert len(found) == (0 if good else 1)
