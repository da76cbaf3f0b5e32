"""Records as a hostile sender makes them: events of a schema with every field drawn, then changed byte by byte."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import fastavro

from grantledger.schemas.catalog import WriterSchema

TEXTS = ("", "a", "\0", "é", "𝄞", "text of some length", "x" * 70, "y" * 9000)
NUMBERS = (0, 1, -1, 63, 64, -65, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 1_790_000_000_000_000)
VARINTS = (
    b"\x80\x00", b"\x82\x80\x00", b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x7f", b"\xfe" + b"\xff" * 8 + b"\x01",
    b"\x80" * 9 + b"\x00", b"\x80" * 10 + b"\x00", b"\xff" * 30, b"\xfe\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x0f",
    b"\x80" * 9 + b"\x02", b"\x01\x00", b"\x03\x7e", b"\x02", b"\x04", b"\x01",
)  # fmt: skip
"""Numbers that are overlong, beyond 64 bits or beyond ten bytes, negative lengths, and counts of blocks."""


def drawn(schema: Any, rng: random.Random, named: dict[str, Any]) -> Any:
    """Return any value of a type."""
    if isinstance(schema, list):
        return drawn(rng.choice(schema), rng, named)
    if isinstance(schema, str):
        if schema in named:
            return drawn(named[schema], rng, named)
        return {
            "null": None,
            "boolean": rng.random() < 0.5,
            "int": rng.randrange(-(2**31), 2**31),
            "long": rng.choice(NUMBERS),
            "string": rng.choice(TEXTS[: 7 if rng.random() < 0.99 else 8]),
            "bytes": rng.randbytes(rng.randrange(12)),
        }[schema]
    if schema["type"] == "record":
        return {field["name"]: drawn(field["type"], rng, named) for field in schema["fields"]}
    if schema["type"] == "array":
        return [drawn(schema["items"], rng, named) for _ in range(rng.choice((0, 0, 1, 2, 5)))]
    if schema["type"] == "fixed":
        return rng.randbytes(schema["size"])
    return drawn(schema["type"], rng, named)


def _collect(schema: Any, named: dict[str, Any]) -> None:
    for part in schema if isinstance(schema, list) else schema.values() if isinstance(schema, dict) else ():
        _collect(part, named)
    if isinstance(schema, dict) and "name" in schema and "type" in schema and schema["type"] in ("record", "fixed"):
        named[schema["name"]] = schema


def plain(schema: Any) -> Any:
    """Return a schema whose times are numbers."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if isinstance(schema, dict):
        return {name: plain(item) for name, item in schema.items() if name != "logicalType"}
    return schema


def events(schema: WriterSchema, rng: random.Random, count: int) -> list[bytes]:
    """Return framed events, each field any value of its type."""
    parsed = fastavro.parse_schema(plain(schema.definition))
    found = []
    named: dict[str, Any] = {}
    _collect(schema.definition, named)
    for _ in range(count):
        out = io.BytesIO(bytes(schema.prefix))
        out.seek(len(schema.prefix))
        fastavro.schemaless_writer(out, parsed, drawn(schema.definition, rng, named))
        found.append(out.getvalue())
    return found


def mutated(schema: WriterSchema, seed: int, count: int) -> Iterator[bytes | None]:
    """Yield records: one in ten unchanged, the others changed in one to three places."""
    rng = random.Random(seed)
    pool = events(schema, rng, 300)
    for _ in range(count):
        value: bytes | None = rng.choice(pool)
        for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 3))):
            value = _changed(value, rng, pool)
        yield value


def _changed(value: bytes | None, rng: random.Random, pool: list[bytes]) -> bytes | None:
    kind = rng.randrange(100)
    if not value or kind == 0:
        return rng.choice((None, b"", b"\xc3", b"\x00", b"\x00\x00\x00\x00", b"\xc3\x01" + rng.randbytes(7)))
    if kind < 4:  # the framing
        return rng.choice((rng.randbytes(2), b"\xc3\x01" + rng.randbytes(8), b"\0\0\0\0\7")) + value[10:]
    at = rng.randrange(min(10, len(value) - 1), len(value))
    if kind < 20:
        return value[:at]
    if kind < 45:  # a number
        return value[:at] + rng.choice(VARINTS) + value[at + rng.randrange(3) :]
    if kind < 60:  # a small change: branches, booleans, lengths
        return value[:at] + bytes([rng.choice((0, 1, 2, 3, 4, 5, 126, 127, 255))]) + value[at + 1 :]
    if kind < 80:
        return value[:at] + rng.randbytes(1) + value[at + 1 :]
    if kind < 90:
        return value[:at] + rng.randbytes(rng.randrange(4)) + value[at + rng.randrange(4) :]
    if kind < 95:
        return value + rng.randbytes(rng.randrange(1, 20))
    return value[:at] + rng.choice(pool)[at:]
