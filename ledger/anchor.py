"""The anchor log: one entry a minute that covers the latest checkpoint of every log (DESIGN section 4, "Anchors")."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Protocol

import fastavro
from fastavro.schema import parse_schema

from ..schemas.catalog import load
from ..schemas.framing import FramingError, prefix_of, single_object_prefix
from .entry import leaf_hash
from .keys import Signer
from .merkle import Frontier, root_of
from .note import Checkpoint, NoteError, open_own_checkpoint, sign_checkpoint

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AnchorError(ValueError):
    """An anchor that cannot be read, or does not agree with itself or with the anchor log."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """One anchor as it stands in ``access.anchors``. ``time_ms``: milliseconds since 1970 by the anchor's clock."""

    origin: str
    index: int
    time_ms: int
    bodies: tuple[str, ...]
    entry: bytes
    frontier: bytes
    note: str

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that the bodies state.

        Raises:
            NoteError: a body is malformed.
        """
        return [Checkpoint.parse(body) for body in self.bodies]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a target answered for one anchor; ``error`` is empty where it took it."""

    origin: str
    index: int
    target: str
    at: datetime
    receipt: bytes
    error: str = ""


class AnchorTarget(Protocol):
    """Somewhere outside that keeps anchors where the operators of the pipeline cannot change them unseen.

    ``publish`` is called only after the anchor is committed, and again with the same anchor after a crash: taking it
    twice must do no harm.
    """

    @property
    def name(self) -> str:
        """Short name, as in the setting ``anchor_targets``."""
        ...

    def publish(self, anchor: Anchor) -> bytes:
        """Write one anchor durably and return the answer as a receipt.

        Raises:
            AnchorTargetError: it was not taken; the message says why.
        """
        ...


class AnchorTargetError(Exception):
    """A target did not take an anchor."""


def anchor_origin(deployment: str) -> str:
    """Return the name of a deployment's anchor log."""
    return f"{deployment}/anchors/0/0"


def anchor_entry(time_ms: int, bodies: Sequence[str]) -> bytes:
    """Return the leaf data over checkpoint bodies, which must be sorted by the bytes of their origin."""
    root = root_of([leaf_hash(body.encode()) for body in bodies])
    return b"GLA1" + struct.pack(">qI", time_ms, len(bodies)) + root


def append_anchor(
    frontier: Frontier, deployment: str, time_ms: int, checkpoints: Sequence[Checkpoint], signer: Signer
) -> tuple[Anchor, Frontier]:
    """Return the next anchor over the latest checkpoints, and the anchor log's frontier after it."""
    origin = anchor_origin(deployment)
    bodies = tuple(c.body() for c in sorted(checkpoints, key=lambda c: c.origin.encode()))
    entry = anchor_entry(time_ms, bodies)
    after = frontier.copy()
    after.extend([leaf_hash(entry)])
    note = sign_checkpoint(Checkpoint(origin, after.size, after.root()), signer)
    return Anchor(origin, frontier.size, time_ms, bodies, entry, after.pack(), note), after


def check_anchor(anchor: Anchor, public_key: bytes) -> Frontier:
    """Verify what one anchor says of itself and return the anchor log's frontier after it.

    Raises:
        AnchorError: entry, bodies, frontier and note do not all agree, or the note is not signed by this key.
    """
    where = f"anchor {anchor.index} of {anchor.origin}"
    try:
        checkpoints = anchor.checkpoints()
        frontier = Frontier.unpack(anchor.index + 1, anchor.frontier)
        stated = open_own_checkpoint(anchor.note, public_key)
    except (NoteError, ValueError) as error:
        raise AnchorError(f"{where}: {error}") from error
    origins = [c.origin.encode() for c in checkpoints]
    if origins != sorted(set(origins)):
        raise AnchorError(f"{where}: its checkpoint bodies are not sorted by origin, each once")
    if anchor.entry != anchor_entry(anchor.time_ms, anchor.bodies):
        raise AnchorError(f"{where}: its entry is not the one that its time and checkpoint bodies give")
    if stated != Checkpoint(anchor.origin, frontier.size, frontier.root()):
        raise AnchorError(f"{where}: its signed checkpoint is not the head that its frontier gives")
    return frontier


def anchored_sizes(anchor: Anchor) -> dict[str, int]:
    """Return how many entries an anchor states for each log, by origin without the epoch."""
    return {c.origin.rpartition("/")[0]: c.size for c in anchor.checkpoints()}


@cache
def _schema(name: str) -> tuple[bytes, Any]:
    definition = load(name)
    return bytes(single_object_prefix(definition)), parse_schema(definition)


def _encode(name: str, datum: dict[str, Any]) -> bytes:
    prefix, schema = _schema(name)
    out = io.BytesIO()
    out.write(prefix)
    fastavro.schemaless_writer(out, schema, datum)
    return out.getvalue()


def _decode(name: str, value: bytes) -> dict[str, Any]:
    prefix, schema = _schema(name)
    try:
        if (found := prefix_of(value)) != prefix:
            raise AnchorError(f"schema id {found.hex()} is not that of {name}")
        rest = io.BytesIO(value[len(prefix) :])
        datum: Any = fastavro.schemaless_reader(rest, schema, None)
        if extra := len(rest.read()):
            raise AnchorError(f"not a readable {name}: {extra} bytes follow it")
        if datum["index"] < 0:
            raise AnchorError(f"not a readable {name}: its index is {datum['index']}")
    except AnchorError:
        raise
    except (FramingError, EOFError, IndexError, ValueError, OverflowError) as error:
        raise AnchorError(f"not a readable {name}: {error}") from error
    result: dict[str, Any] = datum
    return result


def encode_anchor(anchor: Anchor) -> bytes:
    """Return an anchor as the value of one Kafka record, in single-object encoding."""
    return _encode(
        "anchor",
        {
            "origin": anchor.origin,
            "index": anchor.index,
            "time": _EPOCH + timedelta(milliseconds=anchor.time_ms),
            "bodies": list(anchor.bodies),
            "entry": anchor.entry,
            "frontier": anchor.frontier,
            "note": anchor.note,
        },
    )


def decode_anchor(value: bytes) -> Anchor:
    """Read an anchor; :func:`check_anchor` verifies it.

    Raises:
        AnchorError: not an anchor.
    """
    datum = _decode("anchor", value)
    time_ms = (datum["time"] - _EPOCH) // timedelta(milliseconds=1)
    fields = (datum["entry"], datum["frontier"], datum["note"])
    return Anchor(datum["origin"], datum["index"], time_ms, tuple(datum["bodies"]), *fields)


def encode_receipt(receipt: Receipt) -> bytes:
    """Return a receipt as the value of one Kafka record."""
    names = ("origin", "index", "target", "at", "receipt", "error")
    return _encode("receipt", {name: getattr(receipt, name) for name in names})


def decode_receipt(value: bytes) -> Receipt:
    """Read a receipt.

    Raises:
        AnchorError: not a receipt.
    """
    return Receipt(**_decode("receipt", value))
