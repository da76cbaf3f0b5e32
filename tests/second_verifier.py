"""A second verifier of a ledger, written from docs/ledger.md alone. It shares no code with the package it checks.

    python tests/second_verifier.py KEYS.pub FOLDER

KEYS.pub is the list of log keys. FOLDER contains raw Kafka values, one file each, in any folders, in the order of their
sorted paths. The first ten bytes distinguish sealed batches and anchors. ``anchors.jsonl`` in it is the file that the
target ``file`` wrote.
Step numbers in comments are those of the page's section "How to verify".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import fastavro
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

BATCH = bytes.fromhex("c301a8740852054ac5fb")
ANCHOR = bytes.fromhex("c301493553ff0b00500b")
RELEASED = {
    bytes.fromhex("c30171aa26cd3c52b2c0"): "event.1.avsc",
    bytes.fromhex("c301d92064a650958dcb"): "event.2.avsc",
    bytes.fromhex("c3012ee912dd5958d5e9"): "event.3.avsc",
    bytes.fromhex("c30140880c63f5086f1e"): "event.4.avsc",
}
"""The released event schemas: prefix to file."""
NULL = 0xFFFFFFFF
ORIGIN = re.compile(r"[^/\s+]+/[^/\s+]+/(0|[1-9][0-9]*)/(0|[1-9][0-9]*)")


class UnsoundError(Exception):
    """The ledger differs from what was signed. ``index`` is the first entry concerned, if it can be named."""

    def __init__(self, log: str, index: int | None, message: str) -> None:
        super().__init__(f"{log} {'' if index is None else index}: {message}")
        self.log, self.index = log, index


# --- bytes ---------------------------------------------------------------------------------------------------------


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Datum:
    """Reads an Avro datum field by field."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def fixed(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("the datum ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def long(self) -> int:
        number, shift = 0, 0
        while True:
            byte = self.fixed(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise ValueError("a number of more than ten bytes")
        number &= 2**64 - 1
        return (number >> 1) ^ -(number & 1)

    def bytes(self) -> bytes:
        return self.fixed(self.long())

    def string(self) -> str:
        return self.bytes().decode("utf-8")

    def strings(self) -> list[str]:
        return self.items(self.string)

    def value(self, shape: Any) -> Any:
        """One value of a schema without names: text as bytes, times as numbers."""
        if isinstance(shape, list):
            branch = self.long()
            if not 0 <= branch < len(shape):
                raise ValueError("the union has no such branch")
            return self.value(shape[branch])
        kind = shape if isinstance(shape, str) else shape["type"]
        if kind == "null":
            return None
        if kind == "boolean":
            byte = self.fixed(1)[0]
            if byte > 1:
                raise ValueError("a boolean other than 0 and 1")
            return byte == 1
        if kind in ("int", "long", MICROS):
            return self.long()
        if kind in ("string", "bytes"):
            return self.bytes()
        if kind in ("float", "double"):
            return self.fixed(4 if kind == "float" else 8)
        if kind == "fixed":
            return self.fixed(shape["size"])
        if kind == "enum":
            symbol = self.long()
            if not 0 <= symbol < len(shape["symbols"]):
                raise ValueError("the enumeration has no such symbol")
            return shape["symbols"][symbol].encode()
        if kind == "record":
            return {name: self.value(part) for name, part in shape["fields"]}
        if kind == "map":
            return dict(self.items(lambda: (self.bytes(), self.value(shape["values"]))))
        return self.items(lambda: self.value(shape["items"]))

    def items(self, read: Callable[[], Any]) -> list[Any]:
        found: list[Any] = []
        while count := self.long():
            if count < 0:
                self.long()  # size of the block in bytes
                count = -count if count > -(2**63) else 0
            while count:
                found.append(read())
                count -= 1
        return found

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError("bytes follow the datum")


def read_batch(value: bytes) -> dict[str, Any]:
    if value[:10] != BATCH:
        raise ValueError("not a sealed batch")
    datum = Datum(value[10:])
    batch: dict[str, Any] = {"origin": datum.string(), "topic_id": datum.fixed(16)}
    batch |= {"first_offset": datum.long(), "previous_size": datum.long(), "previous_root": datum.fixed(32)}
    batch |= {"first_index": datum.long(), "count": datum.long(), "previous_leaf_hash": datum.fixed(32)}
    for name in (
        "flags", "offsets", "append_times", "key_lengths", "keys", "value_lengths", "values", "header_lengths",
        "headers", "payload_hashes", "leaf_hashes",
    ):  # fmt: skip
        batch[name] = datum.bytes()
    batch |= {"next_offset": datum.long(), "frontier": datum.bytes(), "sealed_at": datum.long(), "note": datum.string()}
    datum.end()
    for name in ("first_offset", "previous_size", "first_index", "count", "next_offset"):
        if batch[name] < 0:
            raise ValueError(f"{name} is negative")
    return batch


def read_anchor(value: bytes) -> dict[str, Any]:
    if value[:10] != ANCHOR:
        raise ValueError("not an anchor")
    datum = Datum(value[10:])
    anchor = {
        "origin": datum.string(), "index": datum.long(), "time_ms": datum.long(), "bodies": datum.strings(),
        "entry": datum.bytes(), "frontier": datum.bytes(), "note": datum.string(),
    }  # fmt: skip
    datum.end()
    return anchor


def read_anchor_line(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
        anchor = {name: found[name] for name in ("origin", "index", "time_ms", "bodies", "note")}
        anchor["frontier"] = bytes.fromhex(found["frontier"])
        anchor["entry"] = anchor_entry(anchor["time_ms"], anchor["bodies"])
    except (ValueError, KeyError, TypeError):
        return None
    return anchor


def numbers(packed: bytes, code: str) -> list[int]:
    return list(struct.unpack(f">{len(packed) // struct.calcsize(code)}{code}", packed))


def blobs(lengths: bytes, joined: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    at = 0
    for length in numbers(lengths, "I"):
        if length == NULL:
            found.append(None)
            continue
        found.append(joined[at : at + length])
        at += length
    if at != len(joined):
        raise ValueError("lengths do not add up")
    return found


def length_and(data: bytes | None) -> bytes:
    return struct.pack(">I", NULL) if data is None else struct.pack(">I", len(data)) + data


# --- tree ----------------------------------------------------------------------------------------------------------


class Tree:
    """Complete subtrees from left to right, as (height, hash)."""

    def __init__(self) -> None:
        self.size, self.subtrees = 0, list[tuple[int, bytes]]()

    @classmethod
    def of(cls, size: int, nodes: list[bytes]) -> Tree:
        tree = cls()
        heights = [height for height in reversed(range(size.bit_length())) if size >> height & 1]
        tree.size, tree.subtrees = size, list(zip(heights, nodes, strict=True))
        return tree

    def append(self, leaf: bytes) -> None:
        self.size += 1
        height = 0
        while self.subtrees and self.subtrees[-1][0] == height:
            leaf = sha(b"\1" + self.subtrees.pop()[1] + leaf)
            height += 1
        self.subtrees.append((height, leaf))

    def frontier(self) -> bytes:
        return b"".join(node for _, node in self.subtrees)

    def root(self) -> bytes:
        return fold([node for _, node in self.subtrees])


def fold(nodes: list[bytes]) -> bytes:
    if not nodes:
        return sha(b"")
    root = nodes[-1]
    for node in reversed(nodes[:-1]):
        root = sha(b"\1" + node + root)
    return root


# --- notes ---------------------------------------------------------------------------------------------------------


def body_of(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def key_id(name: str, kind: bytes, public_key: bytes) -> bytes:
    return sha(name.encode() + b"\n" + kind + public_key)[:4]


def check_note(note: str, body: str, public_key: bytes, batch: tuple[int, int, int, bytes] | None) -> None:
    """Check that a note has exactly this body and these lines, and that its signatures are valid.

    ``batch``: (sealed_at, first index, next offset, last leaf) of the batch, or None in anchors.
    """
    origin = body.split("\n", 1)[0]
    key = Ed25519PublicKey.from_public_bytes(public_key)
    head = f"{body}\n"
    if not note.startswith(head):
        raise ValueError("the checkpoint states another origin, size or root")
    lines = note[len(head) :].split("\n")
    if lines.pop() != "" or len(lines) != (1 if batch is None else 2):
        raise ValueError("the note has other lines than the log writes")
    raws = []
    for line in lines:
        start = f"— {origin} "
        raw = base64.b64decode(line[len(start) :], validate=True)
        if line != start + base64.b64encode(raw).decode():
            raise ValueError("a signature line differs from what the log writes")
        raws.append(raw)
    try:
        if raws[0][:4] != key_id(origin, b"\x01", public_key):
            raise ValueError("signed with another key")
        key.verify(raws[0][4:], body.encode())
        if batch is not None:
            sealed_at, first_index, next_offset, leaf = batch
            if raws[1][:4] != key_id(origin, b"\xffgrantledger/batch/v1", public_key):
                raise ValueError("the batch is signed with another key")
            if raws[1][4:20] != struct.pack(">qQ", sealed_at, next_offset):
                raise ValueError("the time of sealing or the next offset is not the signed one")
            last = base64.b64encode(leaf).decode()
            message = f"grantledger batch v1\n{sealed_at}\n{first_index}\n{next_offset}\n{last}\n{body}"
            key.verify(raws[1][20:], message.encode())
    except InvalidSignature:
        raise ValueError("a signature is not valid") from None


# --- keys ----------------------------------------------------------------------------------------------------------

PEM_BEGIN, PEM_END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


class Keys:
    """The list of log keys: each with its first sizes, by origin."""

    def __init__(self, found: list[tuple[bytes, dict[str, int]]]) -> None:
        self.found = found

    @classmethod
    def read(cls, text: str) -> Keys:
        found, sizes, block = list[tuple[bytes, dict[str, int]]](), dict[str, int](), list[str]()
        for line in map(str.rstrip, text.split("\n")):
            if block or line == PEM_BEGIN:
                block.append(line)
                if line == PEM_END:
                    key = load_pem_public_key("\n".join([*block, ""]).encode())
                    found.append((key.public_bytes(Encoding.Raw, PublicFormat.Raw), sizes))
                    sizes, block = {}, []
            elif line and not line.startswith("#"):
                origin, size = re.fullmatch(r"(\S+) (0|[1-9][0-9]*)", line).groups()  # type: ignore[union-attr]
                sizes[origin] = int(size)
        if block or sizes or not found or found[0][1] or not all(well_formed(sizes) for _, sizes in found):
            raise ValueError("not a list of log keys")
        keys = cls(found)
        for number in range(2, len(found)):
            earlier, later = found[number - 1][1], found[number][1]
            if any(place(later, log) is None or place(later, log) < place(earlier, log) for log in logs_in(earlier)):
                raise ValueError("a key begins before the one before it")
        return keys

    def at(self, origin: str, size: int) -> bytes:
        log, _, epoch = origin.rpartition("/")
        begun = [
            key
            for key, sizes in self.found
            if not sizes or (begin := place(sizes, log)) is None or begin <= (int(epoch), size)
        ]
        return begun[-1]

    def check(self, changes: list[tuple[str, int, bytes]]) -> None:
        """Step 7: each later key is named by an entry, sealed under the key before it; ``changes`` are the others.

        ``changes``: of each ``key.changed`` that counts, its log and index, and ``raw``.
        """
        stated = []
        for origin, index, raw in changes:
            try:
                key, sizes = Keys.read(FIRST_KEY + raw.decode("ascii")).found[1]
            except (ValueError, IndexError, AttributeError):
                continue
            complete = {**sizes, origin: index + 2}
            if block_of(key, sizes) == raw and origin not in sizes and well_formed(complete):
                stated.append((origin, index, key, complete))
        known = [key for key, _ in self.found]
        for number in range(1, len(self.found)):
            for origin, index, key, sizes in stated:
                if (key, sizes) == self.found[number] and self.at(origin, index + 1) == known[number - 1]:
                    break
            else:
                raise UnsoundError("keys", number, "no entry names this key of the list as the list has it")
        last = max((at for at, one in enumerate(stated) if one[2] in known), default=-1)
        if len(stated) > last + 1:
            raise UnsoundError("keys", None, "an entry names a newer key: the list is older than the ledger")


def place(sizes: dict[str, int], log: str) -> Any:
    """Return the epoch and the size from which a key signs a log; None if it does not list it."""
    found = {name.rpartition("/")[0]: (int(name.rpartition("/")[2]), size) for name, size in sizes.items()}
    return found.get(log)


def well_formed(sizes: dict[str, int]) -> bool:
    return all(map(ORIGIN.fullmatch, sizes)) and len(set(logs_in(sizes))) == len(sizes)


def logs_in(sizes: dict[str, int]) -> list[str]:
    return [name.rpartition("/")[0] for name in sizes]


def block_of(key: bytes, sizes: dict[str, int]) -> bytes:
    lines = "".join(f"{name} {sizes[name]}\n" for name in sorted(sizes, key=str.encode)).encode()
    pem = Ed25519PublicKey.from_public_bytes(key).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return lines + pem


FIRST_KEY = block_of(bytes(32), {}).decode()
"""Stands before the block of an event, so that it reads as the second key of a list."""


# --- one log -------------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """What a source signs, and what the headers say of it; ``headers`` as in the payload hash."""

    topic: str
    time: int
    key: bytes | None
    value: bytes | None
    headers: bytes
    partition: int = 0


class Log:
    """The state of one log after the batches so far."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.genesis = genesis_of(batch)
        self.tree = Tree()
        self.last = self.genesis_hash = sha(b"GLG1" + b"".join(self.genesis))
        self.roots: dict[int, bytes] = {}

    def add(self, batch: dict[str, Any], keys: Keys) -> Iterator[Record]:
        """Check one batch and yield its entries."""
        log, first, count = batch["origin"], batch["first_index"], batch["count"]
        if genesis_of(batch) != self.genesis:
            raise UnsoundError(log, first, "the batch names another genesis")  # Step 2, Genesis
        if first != self.tree.size:
            raise UnsoundError(
                log, self.tree.size, "the batch does not begin where the last one ended"
            )  # Step 3, Order
        try:
            records = list(rows(batch))  # Step 1, Format
        except ValueError as error:
            raise UnsoundError(log, first, str(error)) from error
        if batch["previous_leaf_hash"] != self.last:
            raise UnsoundError(log, first, "the batch does not name the leaf before it")  # Step 6, Chain
        offset_before = -1
        for at, (flags, offset, time, key, value, headers, payload, leaf) in enumerate(records):
            if sha(b"GLP1" + length_and(key) + length_and(value) + headers) != payload:
                # Step 4, Payload
                raise UnsoundError(log, first + at, "key, value or headers are not the sealed ones")
            data = b"GLE1" + bytes([flags]) + self.last + struct.pack(">Qq", offset, time) + payload
            if sha(b"\0" + data) != leaf:
                raise UnsoundError(log, first + at, "the entry is not the sealed one")  # Step 5, Leaf
            if offset <= offset_before:
                raise UnsoundError(log, first + at, "offsets do not increase")  # Step 3, Order
            offset_before, self.last = offset, leaf
            self.tree.append(leaf)
            _, topic, partition, _ = batch["origin"].split("/")
            yield Record(topic, time, key, value, headers, int(partition))
        end = first + count - 1
        if batch["frontier"] != self.tree.frontier():
            raise UnsoundError(log, end, "the frontier is not that of the entries")  # Step 7, Checkpoint
        if count and batch["next_offset"] <= offset_before:
            raise UnsoundError(log, end, "reading would go on before the last entry")
        body, key = body_of(log, self.tree.size, self.tree.root()), keys.at(log, self.tree.size)
        try:
            check_note(
                batch["note"], body, key, (batch["sealed_at"], first, batch["next_offset"], self.last)
            )  # Step 8, Batch
        except ValueError as error:
            raise UnsoundError(log, end, str(error)) from error
        self.roots[self.tree.size] = self.tree.root()


def genesis_of(batch: dict[str, Any]) -> tuple[bytes, ...]:
    if not ORIGIN.fullmatch(batch["origin"]):
        raise UnsoundError(batch["origin"], None, "not <deployment>/<topic>/<partition>/<epoch>")
    origin = batch["origin"].encode()
    sizes = struct.pack(">QQ", batch["first_offset"], batch["previous_size"])
    return struct.pack(">H", len(origin)) + origin, batch["topic_id"], sizes, batch["previous_root"]


def rows(batch: dict[str, Any]) -> Iterator[tuple[int, int, int, bytes | None, bytes | None, bytes, bytes, bytes]]:
    count = batch["count"]
    widths = {"flags": 1, "offsets": 8, "append_times": 8, "key_lengths": 4, "value_lengths": 4, "header_lengths": 4}
    for name, width in (widths | {"payload_hashes": 32, "leaf_hashes": 32}).items():
        if len(batch[name]) != width * count:
            raise ValueError(f"column {name} has not {count} members")
    headers = blobs(batch["header_lengths"], batch["headers"])
    if any(header is None or len(header) < 4 for header in headers):
        raise ValueError("headers are null or too short")
    hashes = [
        [batch[name][at : at + 32] for at in range(0, 32 * count, 32)] for name in ("payload_hashes", "leaf_hashes")
    ]
    columns: Any = (
        list(batch["flags"]), numbers(batch["offsets"], "Q"), numbers(batch["append_times"], "q"),
        blobs(batch["key_lengths"], batch["keys"]), blobs(batch["value_lengths"], batch["values"]), headers, *hashes,
    )  # fmt: skip
    return zip(*columns, strict=True)


# --- anchors -------------------------------------------------------------------------------------------------------


def anchor_entry(time_ms: int, bodies: list[str]) -> bytes:
    tree = Tree()
    for body in bodies:
        tree.append(sha(b"\0" + body.encode()))
    return b"GLA1" + struct.pack(">qI", time_ms, len(bodies)) + tree.root()


def check_anchors(anchors: list[dict[str, Any]], keys: Keys, logs: dict[str, Log]) -> int:
    tree, previous = Tree(), ""
    reopened = any(epoch_in(anchor) for anchor in anchors)
    for number, anchor in enumerate(anchors):
        log = anchor["origin"]
        if number == 0 and reopened and anchor["index"]:  # the beginning was lost in Kafka
            size, nodes = anchor["index"] + 1, len(anchor["frontier"]) // 32
            tree = Tree.of(size, [anchor["frontier"][at * 32 : at * 32 + 32] for at in range(nodes)])
        else:
            if previous and log != previous:
                name, _, epoch = previous.rpartition("/")
                mine = body_of(previous, tree.size, tree.root())
                covered = [body for body in anchor["bodies"] if body.startswith(f"{previous}\n")]
                further = covered and int(covered[0].split("\n")[1]) > tree.size
                if log != f"{name}/{int(epoch) + 1}" or (covered != [mine] and not further):
                    raise UnsoundError(log, 0, "the epoch does not cover the head of the epoch before")
                tree = Tree()
            if anchor["index"] != tree.size or (number == 0 and not reopened and epoch_in(anchor)):
                raise UnsoundError(log, tree.size, "an anchor is missing or duplicated")
            tree.append(sha(b"\0" + anchor["entry"]))
        previous = log
        origins = [body.split("\n", 1)[0].encode() for body in anchor["bodies"]]
        if origins != sorted(set(origins)):
            raise UnsoundError(log, anchor["index"], "bodies are not sorted by origin")
        if anchor["entry"] != anchor_entry(anchor["time_ms"], anchor["bodies"]):
            raise UnsoundError(log, anchor["index"], "the entry is not that of time and bodies")
        if anchor["frontier"] != tree.frontier():
            raise UnsoundError(log, tree.size - 1, "the frontier is not that of the anchors")
        try:
            key = keys.at(log, tree.size)
            check_note(anchor["note"], body_of(log, tree.size, tree.root()), key, None)  # Step 11, Anchors
        except ValueError as error:
            raise UnsoundError(log, tree.size - 1, str(error)) from error
        check_covered(anchor, logs)
    return len(anchors)


def epoch_in(anchor: dict[str, Any]) -> int:
    return int(anchor["origin"].rpartition("/")[2])


def check_covered(anchor: dict[str, Any], logs: dict[str, Log]) -> None:  # Step 12, Anchored heads
    for body in anchor["bodies"]:
        origin, size_text, _, _ = body.split("\n")
        if origin.rpartition("/")[0] == anchor["origin"].rpartition("/")[0]:
            continue  # the previous epoch of the anchor log: step 11
        size = int(size_text)
        log = logs.get(origin)
        here = log.tree.size if log else 0
        name, _, epoch = origin.rpartition("/")
        later = min((int(one.rpartition("/")[2]) for one in logs if one.rpartition("/")[0] == name), default=0)
        after = logs.get(f"{name}/{int(epoch) + 1}")
        if size > here and after is not None:  # Kafka lost the end of this epoch
            bound = struct.unpack(">QQ", after.genesis[2])[1]
            if size < bound or body == body_of(origin, bound, after.genesis[3]):
                continue
        if log is None and int(epoch) < later and after is None:
            continue
        if size > here:
            raise UnsoundError(origin, here, f"anchor {anchor['index']} covers {size} entries, {here} are here")
        root = (log.roots if log else {}).get(size, sha(b"") if size == 0 else b"")
        if body_of(origin, size, root) != body:
            raise UnsoundError(origin, size - 1, f"anchor {anchor['index']} covers another root")


# --- schemas and columns -------------------------------------------------------------------------------------------

SAME_NAME = (
    "event_id", "event_type", "occurred_at", "tenant", "entitlement", "grant_id", "grant_id_kind", "request_id",
    "session_id", "approvals", "starts_at", "expires_at", "requested_seconds", "expiry_source", "removal_evidence",
    "reason", "ticket", "customer", "outcome", "error", "client_ip", "raw", "raw_sha256", "received_at",
    "ends_by_itself",
)  # fmt: skip
PLACES = {name: name for name in SAME_NAME} | {
    "source_system": "source.system", "source_instance": "source.instance", "source_seq": "source.seq",
    "native_id": "source.native_id", "native_type": "source.native_type", "subject_id": "subject.id",
    "subject_kind": "subject.kind", "subject_email": "subject.email", "actor_id": "actor.id",
    "actor_kind": "actor.kind", "resource_kind": "resource.kind", "resource_id": "resource.id",
    "resource_environment": "resource.environment", "command": "action.command", "args": "action.args",
    "query": "action.query", "exit_code": "action.exit_code", "redacted": "action.redacted",
    "truncated": "action.truncated", "finding_rule": "finding.rule", "finding_key": "finding.key",
    "finding_severity": "finding.severity", "finding_deadline": "finding.deadline",
    "finding_evidence": "finding.evidence", "finding_accept_index": "finding.accept_index",
    "grant_source_system": "grant_source.system", "grant_source_instance": "grant_source.instance",
    "request_source_system": "request_source.system", "request_source_instance": "request_source.instance",
    "source_sender": "source.sender", "mapping_adapter": "mapping.adapter", "mapping_version": "mapping.version",
    "actor_on_behalf_of": "actor.on_behalf_of", "query_rows": "executed_query.rows",
    "query_duration_ms": "executed_query.duration_ms", "report_result": "report.result",
    "report_reason": "report.reason", "report_records": "report.records",
    "registered_source_tenant": "registered_source.tenant",
    "registered_source_removed": "registered_source.removed",
    "session_source_system": "session_source.system", "session_source_instance": "session_source.instance",
}  # fmt: skip
EMPTY: dict[str, Any] = {
    "approvals": [], "args": [], "redacted": False, "truncated": False, "raw_sha256": bytes(32), "occurred_at": 0
} | dict.fromkeys(
    ("source_seq", "starts_at", "expires_at", "requested_seconds", "exit_code", "finding_deadline",
     "finding_accept_index", "received_at", "ends_by_itself", "query_rows", "query_duration_ms",
     "report_records", "registered_source_removed")
)  # fmt: skip


class Schemas:
    """The writer schemas on record: prefix to (JSON text, in force from this append time on)."""

    def __init__(self, released: Mapping[bytes, str]) -> None:
        self.found: dict[bytes, tuple[str, int]] = {}
        self.released = released

    def learn(self, log: str, index: int, record: Record, sources: Sources) -> None:  # Step 9, Schemas
        time, key, value = record.time, record.key, record.value
        if key is None or value is None or not key.startswith(b"schema/"):
            return
        event = self._event(value, time)
        if event is None or event["event_type"] != b"schema.registered" or not event["registered_schema"]:
            return
        if not sources.believes(record, event, b"grantledger-seal"):
            return
        stated = event["registered_schema"]
        text = stated["json"].decode()
        if sha(text.encode()).hex().encode() != stated["sha256"]:
            return
        prefix = bytes.fromhex(stated["prefix"].decode())
        known = self.found.setdefault(prefix, (text, -(2**63) if stated["initial"] else time))
        if known[0] != text:
            raise UnsoundError(log, index, f"two schemas are registered as {prefix.hex()}")

    def _event(self, value: bytes, time: int) -> dict[str, Any] | None:
        try:
            return self.decode(value, time)
        except ValueError:
            if value[:10] not in self.released:
                return None
            return read_datum(value[10:], self.released[value[:10]])

    def decode(self, value: bytes | None, time: int) -> dict[str, Any]:
        """Return the datum with text as bytes; the message of the error is the code of ``decode_error``."""
        if value is None:
            raise ValueError("value_null")
        prefix = prefix_of(value)
        text, since = self.found.get(prefix, ("", 2**63))
        if time < since:
            raise ValueError("schema_unknown")
        return read_datum(value[len(prefix) :], text)

    def row(self, record: Record, sources: Sources) -> dict[str, Any]:  # Step 10, Decoded columns
        """Return the columns of one entry, its ``signature``, and the code of its ``decode_error``."""
        found = self.columns(record.value, record.time)
        if found["decode_error"]:
            return found | {"signature": b""}
        named = (found["source_system"], found["source_instance"], found["tenant"])
        code = "" if is_valid_event(found, record.topic, record.partition, sources.shards) else "event_invalid"
        return found | {"decode_error": code, "signature": sources.status(record, *named)}

    def columns(self, value: bytes | None, time: int) -> dict[str, Any]:
        """Return the decoded columns of one entry, and the code of its ``decode_error`` if it cannot be decoded."""
        try:
            datum, word = self.decode(value, time), ""
        except ValueError as error:
            datum, word = {}, str(error)
        found: dict[str, Any] = {"decode_error": word}
        for column, place in PLACES.items():
            at: Any = datum
            for name in place.split("."):
                at = at.get(name) if isinstance(at, dict) else None
            found[column] = EMPTY.get(column, b"") if at is None else at
        names = {"reviewer": b"", "group": b"", "decision": b"", "at": None, "reason": b"", "forced": False}
        found["approvals"] = [
            {name: blank if one.get(name) is None else one[name] for name, blank in names.items()}
            for one in found["approvals"]
        ]
        return found


PERSON = (b"finding.acknowledged", b"finding.closed", b"source.registered", b"payload.erased", b"epoch.opened")
TYPES = {
    "access.lifecycle": b"request.created request.approved request.denied request.cancelled request.expired "
    b"grant.activated grant.extended grant.revoked grant.expired grant.failed "
    b"grant.observed session.started session.ended policy.changed",
    "access.activity": b"session.command session.query session.denied session.recording_failed source.report",
    "access.findings": b"finding.opened finding.resolved finding.acknowledged finding.closed revoke.requested "
    b"revoke.attempted revoke.confirmed revoke.failed revoke.dry_run lookup.requested lookup.answered key.changed "
    b"schema.registered source.registered config.changed payload.erased epoch.opened",
    "access.queries": b"query.executed",
}
KIND = b"human service agent system unknown"
VALUES = {
    "subject_kind": KIND, "actor_kind": KIND, "outcome": b"success failure denied pending unknown",
    "expiry_source": b"native derived policy unknown", "grant_id_kind": b"native synthesized",
    "removal_evidence": b"none deadline api_accepted confirmed", "finding_severity": b"info warning critical",
    "report_result": b"mapped skipped failed",
}  # fmt: skip
GIVEN = {
    "request.": ("request_id", "resource", "entitlement"), "grant.": ("grant or request", "resource", "entitlement"),
    "session.": ("session_id",), "config.changed": ("resource", "raw"), "finding.": ("finding",),
    "revoke.": ("finding",), "lookup.": ("finding",),
    "grant.observed": ("grant_id",), "source.report": ("report_result",),
    "grant.activated": ("grant_id", "expiry_source"), "grant.extended": ("expiry_source",),
    "grant.revoked": ("removal_evidence",), "grant.expired": ("removal_evidence",),
}  # fmt: skip
EITHER = {
    "grant or request": ("grant_id", "request_id"),
    "resource": ("resource_kind", "resource_id"), "finding": ("finding_rule", "finding_key", "finding_severity"),
}  # fmt: skip
YEAR_10000 = 253_402_300_800_000_000


def murmur2(data: bytes) -> int:
    """The hash of Kafka's default partitioner."""
    found = 0x9747B28C ^ len(data)
    for at in range(0, len(data) - 3, 4):
        word = struct.unpack_from("<I", data, at)[0] * 0x5BD1E995 % 2**32
        found = (found * 0x5BD1E995 % 2**32) ^ ((word ^ word >> 24) * 0x5BD1E995 % 2**32)
    if tail := len(data) % 4:
        found = (found ^ int.from_bytes(data[-tail:], "little")) * 0x5BD1E995 % 2**32
    found = (found ^ found >> 13) * 0x5BD1E995 % 2**32
    return found ^ found >> 15


def is_valid_event(row: dict[str, Any], topic: str, partition: int, shards: int) -> bool:
    """Whether the columns of a decoded entry keep the rules of "Valid events"."""
    if topic == "access.lifecycle" and murmur2(row["tenant"]) % 2**31 % shards != partition:
        return False
    kind = row["event_type"]
    if kind not in TYPES[topic].split():
        return False
    if any(row[name] not in (b"", *values.split()) for name, values in VALUES.items()):
        return False
    if any(one["decision"] not in (b"approved", b"denied", b"pending") for one in row["approvals"]):
        return False
    if not all(row[name] for name in ("source_system", "source_instance", "native_id", "native_type", "tenant")):
        return False
    for issuer in ("grant", "request", "session"):
        if row[f"{issuer}_source_instance"] and not row[f"{issuer}_source_system"]:
            return False
    times = [row[name] for name in ("occurred_at", "starts_at", "expires_at", "received_at")]
    times += [one["at"] for one in row["approvals"]]
    if any(time is not None and not 0 <= time < YEAR_10000 for time in times):
        return False
    if any(row[name] is not None and row[name] < 0 for name in ("requested_seconds", "report_records")):
        return False
    needed = [name for start, names in GIVEN.items() if kind.startswith(start.encode()) for name in names]
    needed += ["grant_id_kind"] if row["grant_id"] else []
    needed += ["reason", "actor_id"] if kind in PERSON else []
    if not all(any(row[column] for column in EITHER.get(name, (name,))) for name in needed):
        return False
    endless = row["expires_at"] is None and row["expiry_source"] != b"unknown"
    if kind in (b"grant.activated", b"grant.extended") and endless:
        return False
    if kind in PERSON and row["actor_kind"] != b"human":
        return False
    return row["finding_accept_index"] is None or kind == b"finding.closed"


# --- signatures of sources -----------------------------------------------------------------------------------------

OWN_TOPICS = ("access.findings", "access.queries", "access.commands")


class Sources:
    """The registered sources of a deployment: per source, when each registration comes into force, and its content."""

    def __init__(self, deployment: str, released: Mapping[bytes, str]) -> None:
        self.deployment, self.released = deployment, released
        self.operator = (b"grantledger-operator", deployment.encode())
        self.found: dict[tuple[bytes, bytes], list[dict[str, Any]]] = {}
        self.applied: set[bytes] = set()
        self.shards = 1

    def names(self) -> list[str]:
        return sorted(b"/".join(name).decode("utf-8", "replace") for name in self.found)

    def learn(self, record: Record) -> None:
        """Apply an entry of the findings, if it is a registration or states the number of shards."""
        of_shards = record.key == b"lifecycle-shards"
        if not (of_shards or (record.key or b"").startswith(b"source/")):
            return
        if (record.value or b"")[:10] not in self.released:
            return
        try:
            event = read_datum((record.value or b"")[10:], self.released[(record.value or b"")[:10]])
        except ValueError:
            return
        if of_shards:
            raw, kind, by = event.get("raw") or b"", event["event_type"], self.operator[0]
            said = self.operator in self.found and kind == b"config.changed" and self.believes(record, event, by)
            if said and self.shards == 1 and re.fullmatch(rb"[1-9][0-9]{0,3}", raw):
                self.shards = int(raw)
            return
        stated = event.get("registered_source")
        if event["event_type"] != b"source.registered" or not stated or event["event_id"] in self.applied:
            return
        source = (_utf8(stated["system"]), _utf8(stated["instance"]))
        own = source[0].startswith(b"grantledger-")
        keys = {}
        for one in stated["keys"]:
            public = one["public_key"]
            if len(public) != 32 or one["key_id"] != sha(public)[:8].hex().encode():
                return
            keys[sha(public)[:8]] = (public, one["valid_from"], one["valid_until"])
        always = stated["initial"] and own and source not in self.found
        if self.operator not in self.found:
            signature = self._signature(record) or b""
            first = source == self.operator and always and signature[:8] in keys
            if not first or not self._verifies(record, signature, keys[signature[:8]][0]):
                return
        elif not self.believes(record, event, self.operator[0]):
            return
        self.applied.add(event["event_id"])
        tenant = None if stated["tenant"] is None else _utf8(stated["tenant"])
        new = {"from": -(2**63) if always else record.time + 60_000, "tenant": tenant, "keys": keys}
        self.found.setdefault(source, []).append(new | {"removed": stated["removed"] and not own})

    def new_key(self, record: Record) -> bytes | None:
        """Return ``raw`` of a change of the log key that counts: the operator signed it."""
        value = record.value or b""
        if record.key != b"log-key" or value[:10] not in self.released or self.operator not in self.found:
            return None
        try:
            event = read_datum(value[10:], self.released[value[:10]])
        except ValueError:
            return None
        counts = event["event_type"] == b"key.changed" and self.believes(record, event, self.operator[0])
        return (event.get("raw") or b"") if counts else None

    def believes(self, record: Record, event: dict[str, Any], by: bytes) -> bool:
        """Whether an entry of the findings counts: from this system, once sources are registered."""
        if self.operator not in self.found:
            return True
        source = event["source"]
        status = self.status(record, *map(_utf8, (source["system"], source["instance"], event["tenant"])))
        return status == b"valid" and source["system"] == by

    def status(self, record: Record, system: bytes, instance: bytes, tenant: bytes) -> bytes:
        own, restricted = system.startswith(b"grantledger-"), record.topic in OWN_TOPICS
        if self.operator not in self.found:
            return b"unregistered"
        in_force = [one for one in self.found.get((system, instance), ()) if one["from"] <= record.time]
        last = in_force[-1] if in_force and not in_force[-1]["removed"] else None
        if last is None and not own and not restricted:
            return b"unregistered"
        signature = self._signature(record)
        if signature is None:
            return b"missing"
        public, since, until = (last or {"keys": {}})["keys"].get(signature[:8], (b"", 0, 0))
        in_time = since <= record.time * 1000 and (until is None or record.time * 1000 < until)
        if last is None or not public or not in_time or last["tenant"] not in (None, tenant):
            return b"invalid"
        good = (own or not restricted) and self._verifies(record, signature, public)
        return b"valid" if good else b"invalid"

    def _signature(self, record: Record) -> bytes | None:
        data, at, found = record.headers, 4, []
        for _ in range(struct.unpack_from(">I", data)[0] * 2):
            (size,) = struct.unpack_from(">I", data, at)
            size, at = 0 if size == NULL else size, at + 4
            found.append(data[at : at + size])
            at += size
        return next((v for n, v in zip(found[::2], found[1::2], strict=True) if n == b"grantledger-signature"), None)

    def _verifies(self, record: Record, signature: bytes, public: bytes) -> bool:
        parts = (self.deployment.encode(), record.topic.encode(), record.key, record.value)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature[8:], b"GLS1" + b"".join(map(length_and, parts)))
        except (InvalidSignature, ValueError):
            return False
        return len(signature) == 72


def _utf8(text: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode()


def prefix_of(value: bytes) -> bytes:
    if not value:
        raise ValueError("framing_empty")
    for marker, length in ((b"\xc3\x01", 10), (b"\x00", 5)):
        if value.startswith(marker):
            if len(value) < length:
                raise ValueError("framing_truncated")
            return value[:length]
    raise ValueError("framing_unknown")


def read_datum(datum: bytes, schema: str) -> dict[str, Any]:
    try:
        decoded: dict[str, Any] = Datum(datum).value(shape_of(schema))
    except ValueError as error:
        raise ValueError("datum_invalid") from error
    return decoded


MICROS = "timestamp-micros"
LEAST = {"null": 0, "boolean": 1, "int": 1, "long": 1, MICROS: 1, "float": 4, "double": 8, "string": 1, "bytes": 1}
KINDS = dict.fromkeys(
    ("occurred_at", "starts_at", "expires_at", "finding_deadline", "received_at"), (MICROS,)
) | dict.fromkeys(
    ("redacted", "truncated", "ends_by_itself", "registered_source_removed"), ("boolean",)
) | dict.fromkeys(
    ("source_seq", "requested_seconds", "exit_code", "finding_accept_index", "query_rows", "query_duration_ms",
     "report_records"),
    ("int", "long", MICROS),
)  # fmt: skip
"""The kinds of the places that are not text."""
TEXT = ("string", "bytes", "enum")

_shapes: dict[str, Any] = {}


def shape_of(schema: str) -> Any:
    """Return a schema without names, or raise ValueError if it is not usable."""
    if schema not in _shapes:
        try:
            found = Shape().of(fastavro.parse_schema(_without_texts(json.loads(schema))), 0)
            usable = isinstance(found, dict) and found["type"] == "record" and all(
                fits(found, place.split("."), column) for column, place in PLACES.items()
            )  # fmt: skip
            _shapes[schema] = found if usable else None
        except Exception:  # any JSON may be registered
            _shapes[schema] = None
    if _shapes[schema] is None:
        raise ValueError("the schema is not usable")
    return _shapes[schema]


class Shape:
    """Replaces the names in one schema by their types."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self.inside: list[str] = []
        self.types = 0

    def of(self, node: Any, depth: int) -> Any:
        if isinstance(node, str) and node not in LEAST:
            if node in self.inside:
                raise ValueError("a type contains itself")
            node = self.named[node]
        if isinstance(node, dict) and not isinstance(node["type"], str):
            return self.of(node["type"], depth)
        kind = node if isinstance(node, str | list) else node["type"]
        if isinstance(kind, str) and kind not in (*LEAST, "record", "fixed", "enum", "array", "map"):
            return self.of(kind, depth)
        self.types += 1
        if self.types > 2000 or depth > 24:
            raise ValueError("too large")
        if isinstance(kind, list):
            return [self.of(one, depth + 1) for one in kind]
        if kind in LEAST:
            return MICROS if isinstance(node, dict) and node.get("logicalType") == MICROS and kind == "long" else kind
        if kind in ("array", "map"):
            part = {"array": "items", "map": "values"}[kind]
            inner = self.of(node[part], depth + 1)
            if kind == "array" and least(inner) == 0:
                raise ValueError("items without bytes")
            return {"type": kind, part: inner}
        self.named[node["name"]] = node
        if kind == "enum":
            return {"type": kind, "symbols": list(node["symbols"])}
        if kind == "fixed":
            if type(node["size"]) is not int or not 0 <= node["size"] <= 2**20:
                raise ValueError("size")
            return {"type": kind, "size": node["size"]}
        self.inside.append(node["name"])
        fields = [(one["name"], self.of(one["type"], depth + 1)) for one in node["fields"]]
        self.inside.pop()
        return {"type": kind, "fields": fields}


def least(shape: Any) -> int:
    if isinstance(shape, str):
        return LEAST[shape]
    if isinstance(shape, dict) and shape["type"] == "record":
        return sum(least(part) for _, part in shape["fields"])
    return int(shape["size"]) if isinstance(shape, dict) and shape["type"] == "fixed" else 1


def fits(shape: Any, path: list[str], column: str) -> bool:
    """Whether a place is missing, or of its column's kind."""
    if isinstance(shape, list) and len(shape) == 2 and "null" in shape:
        shape = shape[1] if shape[0] == "null" else shape[0]
    if path:
        if not isinstance(shape, dict) or shape["type"] != "record":
            return False
        found = [part for name, part in shape["fields"] if name == path[0]]
        return not found or (len(found) == 1 and fits(found[0], path[1:], column))
    if isinstance(shape, list):
        return False
    kind = shape if isinstance(shape, str) else shape["type"]
    if column == "approvals":
        parts = {"at": "occurred_at", "forced": "redacted"}
        names = ("reviewer", "group", "decision", "at", "reason", "forced")
        item = shape["items"] if kind == "array" else None
        return (
            isinstance(item, dict)
            and item["type"] == "record"
            and all(fits(item, [name], parts.get(name, "reason")) for name in names)
        )
    if column == "args":
        return kind == "array" and shape["items"] in ("string", "bytes")
    if column == "raw_sha256":
        return bool(shape == {"type": "fixed", "size": 32})
    return kind in KINDS.get(column, TEXT)


def _without_texts(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_texts(one) for one in node]
    if isinstance(node, dict):
        micros = (node.get("type"), node.get("logicalType")) == ("long", MICROS)
        gone = (
            ("default", "doc", "order", "aliases") if micros else ("default", "doc", "order", "aliases", "logicalType")
        )
        return {key: _without_texts(one) for key, one in node.items() if key not in gone}
    return node


# --- everything ----------------------------------------------------------------------------------------------------


def verify(
    values: Iterable[bytes],
    keys: Keys | bytes,
    outside: Iterable[str] = (),
    released: Mapping[bytes, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Check sealed batches and anchors, given as raw Kafka values, each log in its order.

    Returns the sound heads; raises UnsoundError at the first problem.
    """
    keys = Keys([(keys, {})]) if isinstance(keys, bytes) else keys
    logs: dict[str, Log] = {}
    anchors: list[dict[str, Any]] = []
    changes: list[tuple[str, int, bytes]] = []
    schemas = Schemas(released)
    sources: Sources | None = None
    for number, value in enumerate(values):
        if value[:10] == ANCHOR:
            try:
                anchors.append(read_anchor(value))
            except ValueError as error:
                raise UnsoundError("anchors", len(anchors), str(error)) from error
            continue
        try:
            batch = read_batch(value)
        except ValueError as error:
            raise UnsoundError(f"value {number}", None, str(error)) from error
        log = logs.setdefault(batch["origin"], Log(batch))
        of_findings = batch["origin"].split("/")[1] == "access.findings"
        for at, record in enumerate(log.add(batch, keys)):
            if of_findings:
                sources = sources or Sources(batch["origin"].split("/")[0], released)
                sources.learn(record)
                schemas.learn(batch["origin"], batch["first_index"] + at, record, sources)
                if (raw := sources.new_key(record)) is not None:
                    changes.append((batch["origin"], batch["first_index"] + at, raw))
    check_epochs(logs)
    keys.check(changes)
    count = check_anchors(anchors, keys, logs)
    inside = {(anchor["origin"], anchor["index"]): anchor for anchor in anchors}
    for anchor in filter(None, map(read_anchor_line, outside)):  # Step 13, Outside anchors
        if anchor != inside.get((anchor["origin"], anchor["index"]), anchor):
            raise UnsoundError(anchor["origin"], anchor["index"], "the anchor outside is another one: two histories")
        nodes = [anchor["frontier"][at : at + 32] for at in range(0, len(anchor["frontier"]), 32)]
        try:
            key = keys.at(anchor["origin"], anchor["index"] + 1)
            check_note(anchor["note"], body_of(anchor["origin"], anchor["index"] + 1, fold(nodes)), key, None)
        except ValueError as error:
            raise UnsoundError(anchor["origin"], anchor["index"], f"outside: {error}") from error
        check_covered(anchor, logs)
    heads = {origin: (log.tree.size, log.tree.root().hex()) for origin, log in logs.items()}
    registered = {p.hex(): since for p, (_, since) in schemas.found.items()}
    return {"heads": heads, "anchors": count, "schemas": registered, "sources": sources.names() if sources else []}


def check_epochs(logs: dict[str, Log]) -> None:
    for origin, log in logs.items():  # Step 2, Genesis
        name, _, epoch = origin.rpartition("/")
        before = logs.get(f"{name}/{int(epoch) - 1}")
        expected = (before.tree.size, before.tree.root()) if before else (0, bytes(32))
        stated = struct.unpack(">QQ", log.genesis[2])[1], log.genesis[3]
        lost = before is not None and stated[0] > expected[0]  # Kafka lost the end of the epoch before
        if stated != expected and (before or epoch == "0") and not lost:
            raise UnsoundError(origin, 0, "the genesis does not bind the head of the epoch before")


def released_schemas() -> dict[bytes, str]:
    folder = Path(__file__).resolve().parents[1] / "schemas" / "released"
    return {prefix: (folder / name).read_text("utf-8") for prefix, name in RELEASED.items()}


def main(key_file: str, folder: str) -> int:
    keys = Keys.read(Path(key_file).read_text("ascii"))
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    values = (path.read_bytes() for path in files if path.suffix != ".jsonl")
    lines = [line for path in files if path.suffix == ".jsonl" for line in path.read_text("utf-8").splitlines()]
    try:
        found = verify((v for v in values if v[:10] in (BATCH, ANCHOR)), keys, lines, released_schemas())
    except UnsoundError as problem:
        print(f"not sound: {problem}")
        return 1
    print(json.dumps({"sound": True} | found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:3]))
