"""The second verifier, written from docs/ledger.md alone, on ledgers that the sealer's code creates."""

from __future__ import annotations

import ast
import dataclasses
import json
from datetime import timedelta
from pathlib import Path

import pytest
import second_verifier
from hypothesis import given
from hypothesis import strategies as st
from second_verifier import UnsoundError

from grantledger.ledger.anchor import anchor_origin, append_anchor, encode_anchor
from grantledger.ledger.batch import Head, Records, SealedBatch, encode, seal
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.merkle import Frontier
from grantledger.processors.notices import schema_key, schema_registered
from grantledger.schemas.catalog import ALWAYS, WriterSchema, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.framing import confluent_prefix
from grantledger.sinks.file_target import FileTarget
from support.small_ledger import GENESIS, SIGNER, START, cut, entries, records_of, seal_parts

KEY = SIGNER.public_key
RELEASED = second_verifier.released_schemas()


def check(values: list[bytes], outside: list[str] | None = None, key: bytes = KEY) -> dict:
    return second_verifier.verify(values, key, outside or [], RELEASED)


def test_it_shares_no_code_with_the_product() -> None:
    tree = ast.parse(Path(second_verifier.__file__).read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported <= {
        "__future__", "base64", "collections", "cryptography", "fastavro", "hashlib", "json", "pathlib",
        "re", "struct", "sys", "types", "typing",
    }  # fmt: skip


@given(entries(max_size=30), st.lists(st.integers(0, 7), min_size=1, max_size=4))
def test_it_comes_to_the_same_head(found, sizes: list[int]) -> None:
    batches, head = seal_parts(cut(found, sizes) or [[]])
    assert check([encode(batch) for batch in batches])["heads"] == {
        GENESIS.origin: (head.size, head.frontier.root().hex())
    }


FOUND = [(1, 7 + 2 * at, 1000 + at, b"k%d" % at, b"value", NO_HEADERS) for at in range(7)]


def ledger() -> list[SealedBatch]:
    """Three batches, an empty one in between."""
    return seal_parts([FOUND[:3], FOUND[3:4], [], FOUND[4:]])[0]


MUTATIONS = {
    "genesis": Genesis(GENESIS.origin, GENESIS.topic_id, 8),
    "first_index": 2,
    "count": 2,
    "previous_leaf_hash": bytes(32),
    "sealed_at": START + timedelta(hours=1),
    "next_offset": 1,
    "note": "",
}


@pytest.mark.parametrize("at", range(4))
def test_it_finds_a_change_of_any_field_of_any_batch(at: int) -> None:
    for field in (field.name for field in dataclasses.fields(SealedBatch)):
        batches = ledger()
        old = getattr(batches[at], field)
        new = MUTATIONS.get(field, bytes([old[0] ^ 1]) + old[1:] if old and isinstance(old, bytes) else b"\1")
        if field == "next_offset" and batches[at].count == 0:
            continue  # says nothing that is signed
        batches[at] = dataclasses.replace(batches[at], **{field: new})
        with pytest.raises(UnsoundError) as caught:
            check([encode(batch) for batch in batches])
        if caught.value.index is not None:
            assert ledger()[at].size >= caught.value.index >= ledger()[at].first_index - 1, field


@given(st.data())
def test_it_finds_a_change_of_any_byte(data: st.DataObject) -> None:
    values = [encode(batch) for batch in ledger()]
    which = data.draw(st.integers(0, 3))
    value = values[which]
    at = data.draw(st.integers(0, len(value) - 1))
    changed = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
    # The only part that nothing binds: where reading goes on, as long as it is not before the last entry.
    try:
        before, after = second_verifier.read_batch(value), second_verifier.read_batch(changed)
        if {name for name in before if before[name] != after[name]} <= {"next_offset"}:
            return
    except ValueError:
        pass
    values[which] = changed
    with pytest.raises(UnsoundError):
        check(values)


def test_it_finds_batches_gone_doubled_or_swapped() -> None:
    values = [encode(batch) for batch in ledger()]
    for broken in (values[1:], [values[0], *values[2:]], [values[0], *values], [values[1], values[0], *values[2:]]):
        with pytest.raises(UnsoundError):
            check(broken)
    with pytest.raises(UnsoundError):
        check(values, key=LocalSigner.generate().public_key)


def test_it_finds_an_end_cut_off_only_by_an_anchor(tmp_path: Path) -> None:
    batches = ledger()
    values = [encode(batch) for batch in batches]
    anchors, frontier = [], Frontier()
    for time, batch in enumerate(batches):
        anchor, frontier = append_anchor(
            frontier, anchor_origin("test.example"), time, [batch.verified_head(KEY).checkpoint()], SIGNER
        )
        anchors.append(anchor)
    assert check(values + [encode_anchor(anchor) for anchor in anchors])["anchors"] == 4
    assert check(values[:1])["heads"][GENESIS.origin][0] == 3  # nothing says that there was more
    with pytest.raises(UnsoundError, match="covers 4 entries, 3 are here"):
        check(values[:1] + [encode_anchor(anchor) for anchor in anchors])
    target = FileTarget(tmp_path / "anchors.jsonl")
    for anchor in anchors:
        target.publish(anchor)
    outside = (tmp_path / "anchors.jsonl").read_text("utf-8").splitlines()
    assert check(values, outside)["anchors"] == 0
    with pytest.raises(UnsoundError, match="covers 4 entries, 3 are here"):
        check([*values[:1], encode_anchor(anchors[0])], outside)
    forged = json.loads(outside[0]) | {"time_ms": 99}
    with pytest.raises(UnsoundError, match="two histories"):
        check([*values, encode_anchor(anchors[0])], [json.dumps(forged)])


@pytest.mark.parametrize("field", ["origin", "index", "time_ms", "bodies", "entry", "frontier", "note"])
def test_it_finds_a_change_of_any_field_of_an_anchor(field: str) -> None:
    batches = ledger()
    anchor, _ = append_anchor(
        Frontier(), anchor_origin("test.example"), 5, [batches[0].verified_head(KEY).checkpoint()], SIGNER
    )
    new = {"origin": "test.example/anchors/0/1", "index": 1, "time_ms": 6, "bodies": (), "note": anchor.note + "x"}
    forged = dataclasses.replace(anchor, **{field: new.get(field, bytes(48))})
    with pytest.raises(UnsoundError):
        check([encode(batch) for batch in batches] + [encode_anchor(forged)])


def test_it_binds_an_epoch_to_the_one_before() -> None:
    values = [encode(batch) for batch in ledger()]
    head = ledger()[-1].verified_head(KEY)
    name = GENESIS.origin[:-1] + "1"
    for size, root, sound in ((head.size, head.frontier.root(), True), (head.size - 1, head.frontier.root(), False)):
        genesis = Genesis(name, GENESIS.topic_id, 40, size, root)
        batch, _ = seal(Head.at_genesis(genesis), records_of(FOUND), 100, START, SIGNER)
        if sound:
            assert check([*values, encode(batch)])["heads"][name][0] == 7
        else:
            with pytest.raises(UnsoundError, match="does not bind the head of the epoch before"):
                check([*values, encode(batch)])


def test_it_finds_the_schemas_on_record() -> None:
    other = WriterSchema(confluent_prefix(7), event_schema().text)
    events = [
        schema_registered("test.example", schema, schema is not other, START) for schema in (event_schema(), other)
    ]
    values = [EventEncoder().encode(event) for event in events]
    keys = [schema_key(schema).encode() for schema in (event_schema(), other)]
    genesis = Genesis("test.example/access.findings/0/0", bytes(16), 0)
    records = Records([1, 1], [0, 1], [10, 20], list(keys), list(values), [NO_HEADERS] * 2)
    batch, _ = seal(Head.at_genesis(genesis), records, 2, START, SIGNER)
    assert check([encode(batch)])["schemas"] == {bytes(event_schema().prefix).hex(): ALWAYS, "0000000007": 20}
    forged = WriterSchema(other.prefix, '{"type":"record","name":"x","fields":[]}')
    records.values[0] = EventEncoder().encode(schema_registered("test.example", forged, True, START))
    batch, _ = seal(Head.at_genesis(genesis), records, 2, START, SIGNER)
    with pytest.raises(UnsoundError, match="two schemas are registered as 0000000007"):
        check([encode(batch)])


def test_it_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from grantledger.ledger.keys import public_pem

    key = tmp_path / "log.pub"
    key.write_bytes(public_pem(KEY))
    folder = tmp_path / "values"
    folder.mkdir()
    for number, batch in enumerate(ledger()):
        (folder / f"{number:08}").write_bytes(encode(batch))
    assert second_verifier.main(str(key), str(folder)) == 0
    assert json.loads(capsys.readouterr().out)["sound"] is True
    (folder / "00000001").unlink()
    assert second_verifier.main(str(key), str(folder)) == 1
    assert capsys.readouterr().out.startswith("not sound: test.example/access.lifecycle/0/0 3:")
