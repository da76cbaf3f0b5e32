"""The verifier detects and locates every change to the records of the sealed topics and the anchors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from grantledger.base.times import micros_of
from grantledger.ledger import batch as batches
from grantledger.ledger.anchor import decode_anchor, encode_anchor
from grantledger.ledger.batch import SealedBatch, leaf_at
from grantledger.ledger.keys import LocalSigner, LogKeys
from grantledger.ledger.note import BatchFacts, Checkpoint, sign_checkpoint
from grantledger.verifier.kafka_source import KafkaEvidence, PlacedRecord
from grantledger.verifier.outside import OutsideAnchors
from grantledger.verifier.procedure import verify
from support.events import produce
from support.tampered_ledger import (
    ANCHORS,
    DEPLOYMENT,
    LIFECYCLE,
    Ledger,
    problems,
)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


class TestKafka:
    """The sealed topics and the anchors, as an attacker who may write there sees them."""

    LOG: ClassVar = "access.lifecycle.sealed/0"

    def verify(
        self, ledger: Ledger, sealed: dict[str, list[bytes]], anchors: list[bytes] | None = None
    ) -> dict[str, Any]:
        if anchors is None:
            anchors = [encode_anchor(anchor) for anchor in ledger.anchors]
        evidence = KafkaEvidence(
            DEPLOYMENT,
            [
                PlacedRecord(topic, int(partition), at, value)
                for where, values in sealed.items()
                for topic, _, partition in [where.partition("/")]
                for at, value in enumerate(values)
            ],
            [PlacedRecord("access.anchors", 0, at, value) for at, value in enumerate(anchors)],
        )
        return verify(
            evidence, LogKeys.single(ledger.signer.public_key), outside=OutsideAnchors(ledger.anchors)
        ).as_json()

    def at(self, sealed: dict[str, list[bytes]], first: int) -> int:
        """Which record of the lifecycle log is the batch that begins at an index."""
        return next(
            at
            for at, value in enumerate(sealed[self.LOG])
            if (batch := batches.decode(value)).first_index == first and batch.count
        )

    def test_untouched(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        report = self.verify(ledger, sealed)
        assert problems(report) == []
        assert report["entries"] == ledger.store.verify()["entries"]

    FIELDS: ClassVar[dict[str, Callable[[SealedBatch], Any]]] = {
        "genesis": lambda batch: replace(batch.genesis, first_offset=99),
        "first_index": lambda batch: batch.first_index + 1,
        "count": lambda batch: batch.count - 1,
        "next_offset": lambda batch: batch.next_offset + 1,
        "sealed_at": lambda batch: batch.sealed_at + timedelta(microseconds=1),
        "note": lambda batch: batch.note.replace("\n\n", "\n\n— witness AAAAAAAA\n"),
    } | {
        name: lambda batch, name=name: flipped(getattr(batch, name))
        for name in (
            "previous_leaf_hash", "flags", "offsets", "append_times", "key_lengths", "keys", "value_lengths", "values",
            "header_lengths", "headers", "payload_hashes", "leaf_hashes", "frontier",
        )
    }  # fmt: skip

    def test_no_field_is_left_out(self) -> None:
        assert {field.name for field in fields(SealedBatch)} == set(self.FIELDS)

    @pytest.mark.parametrize("field", FIELDS)
    def test_a_field_of_a_batch(self, ledger: Ledger, sealed: dict[str, list[bytes]], field: str) -> None:
        at = self.at(sealed, ledger.full[0])
        values = list(sealed[self.LOG])
        batch = batches.decode(values[at])
        values[at] = batches.encode(replace(batch, **{field: self.FIELDS[field](batch)}))
        origin, index, check = problems(self.verify(ledger, sealed | {self.LOG: values}))[0]
        assert origin in (LIFECYCLE, f"{self.LOG} offset {at}")
        if origin == LIFECYCLE:
            assert index is not None and ledger.full[0] <= index <= ledger.full[1]
        else:
            assert index is None and check in ("batch", "checkpoint", "sealed_at")

    @pytest.mark.parametrize("change", ["removed", "doubled", "swapped", "cut off", "garbage", "signed anew"])
    def test_a_whole_batch(self, ledger: Ledger, sealed: dict[str, list[bytes]], change: str) -> None:
        at = self.at(sealed, ledger.full[0])
        values = list(sealed[self.LOG])
        batch = batches.decode(values[at])
        checkpoint = Checkpoint.parse(batch.note.split("\n\n")[0] + "\n")
        facts = BatchFacts(micros_of(batch.sealed_at), batch.first_index, batch.next_offset, batch.last_leaf)
        note = sign_checkpoint(checkpoint, LocalSigner.generate(), facts)
        expected: tuple[str, int | None, str] = (LIFECYCLE, ledger.full[0], "index")
        match change:
            case "removed":
                del values[at]
            case "doubled":
                values.insert(at, values[at])
            case "swapped":
                values[at], values[at + 1] = values[at + 1], values[at]
            case "cut off":
                del values[at:]
                expected = (LIFECYCLE, ledger.full[0], "truncated")
            case "garbage":
                values.insert(at, b"no batch")
                expected = (f"{self.LOG} offset {at}", None, "batch")
            case "signed anew":
                values[at] = batches.encode(replace(batch, note=note))
                expected = (f"{self.LOG} offset {at}", None, "checkpoint")
        found = problems(self.verify(ledger, sealed | {self.LOG: values}))
        assert found[0] == expected

    def test_two_partitions_swapped(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """Each log is sound, but not in the partition where it was sealed."""
        one, other = (f"access.activity.sealed/{partition}" for partition in (0, 1))
        found = problems(self.verify(ledger, sealed | {one: sealed[other], other: sealed[one]}))
        assert {(where, check) for where, _, check in found} >= {
            (f"{one} offset 0", "origin"),
            (f"{other} offset 0", "origin"),
        }

    def test_of_another_deployment(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        evidence = KafkaEvidence(
            "other.example", [PlacedRecord("access.lifecycle.sealed", 0, 0, sealed[self.LOG][0])], []
        )
        report = verify(evidence, LogKeys.single(ledger.signer.public_key)).as_json()
        assert problems(report) == [(f"{self.LOG} offset 0", None, "origin")]

    def test_log_deleted(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        assert problems(self.verify(ledger, sealed | {self.LOG: []})) == [(LIFECYCLE, 0, "truncated")]

    def test_restated_head(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """An empty batch restates the head of the log and nothing else."""
        last = batches.decode(sealed[self.LOG][-1])
        head = last.verified_head(ledger.signer.public_key)
        empty, _ = batches.seal(head, batches.Records(), head.next_offset, last.sealed_at, ledger.signer)
        assert leaf_at(last, last.size - 1) == empty.previous_leaf_hash
        restated = sealed | {self.LOG: [*sealed[self.LOG], batches.encode(empty)]}
        assert problems(self.verify(ledger, restated)) == []
        wrong = replace(empty, previous_leaf_hash=bytes(32))
        restated[self.LOG][-1] = batches.encode(wrong)
        assert problems(self.verify(ledger, restated)) == [
            (f"{self.LOG} offset {len(sealed[self.LOG])}", None, "checkpoint")
        ]
        second, _ = batches.seal(
            replace(head, last_leaf=bytes(32)), batches.Records(), 99, last.sealed_at, ledger.signer
        )
        restated[self.LOG][-1] = batches.encode(second)  # signed with the key of the log, and still wrong
        assert problems(self.verify(ledger, restated)) == [(LIFECYCLE, last.size, "chain")]

    @pytest.mark.parametrize("change", ["removed", "last removed", "garbage", "doubled"])
    def test_an_anchor(self, ledger: Ledger, sealed: dict[str, list[bytes]], change: str) -> None:
        anchors = [encode_anchor(anchor) for anchor in ledger.anchors]
        assert decode_anchor(anchors[0]) == ledger.anchors[0]
        expected: tuple[str, int | None, str] = (ANCHORS, 2, "anchor_index")
        match change:
            case "removed":
                del anchors[2]
            case "last removed":
                del anchors[-1]
                expected = (ANCHORS, len(anchors), "anchor_index")
            case "garbage":
                anchors.insert(2, b"no anchor")
                expected = ("access.anchors/0 offset 2", None, "anchor")
            case "doubled":
                anchors.insert(2, anchors[2])
        assert expected in problems(self.verify(ledger, sealed, anchors))

    def test_forged_records_in_the_real_topics(self, ledger: Ledger, sealed: dict[str, list[bytes]]) -> None:
        """The last test, through the command: afterwards the topics contain forged records."""
        code, report = ledger.pipeline.verify("--from", "kafka")
        assert code == 0, report["problems"]
        batch = batches.decode(sealed[self.LOG][self.at(sealed, ledger.full[0])])
        forged = batches.encode(replace(batch, values=flipped(batch.values)))
        produce(ledger.pipeline.cluster, "access.lifecycle.sealed", [{"value": forged}])
        produce(ledger.pipeline.cluster, "access.activity.sealed", [{"value": b"no batch", "partition": 2}])
        produce(ledger.pipeline.cluster, "access.anchors", [{"value": b"no anchor"}])
        code, report = ledger.pipeline.verify("--from", "kafka")
        assert code == 1
        found = problems(report)
        assert (LIFECYCLE, ledger.full[1], "payload") in found
        wheres = [origin for origin, _, _ in found]
        assert any(where.startswith("access.activity.sealed/2 offset ") for where in wheres)
        assert any(where.startswith("access.anchors/0 offset ") for where in wheres)
