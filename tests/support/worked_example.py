"""The worked example of docs/ledger.md, computed by the sealer's code: ``python tests/support/worked_example.py``."""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grantledger.ledger.anchor import anchor_origin, append_anchor, encode_anchor
from grantledger.ledger.batch import Head, Records, encode, seal
from grantledger.ledger.entry import Genesis, encode_headers, leaf_hash
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.merkle import Frontier, node_hash
from grantledger.ledger.note import verifier_key

SIGNER = LocalSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
"""For tests only: this key is public."""
GENESIS = Genesis("test.example/access.lifecycle/0/0", bytes(range(16)), 7)
RECORDS = Records(
    flags=[1, 0, 1],
    offsets=[7, 9, 10],
    append_times=[1_772_366_399_000, -1, 1_772_366_399_500],
    keys=[b"g-1", None, b"g-1"],
    values=[b"hello", b"", None],
    headers=[encode_headers([]), encode_headers([("trace", b"x"), ("trace", None)]), encode_headers([])],
)
SEALED_AT = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)


def made() -> tuple[bytes, bytes, bytes]:
    """Return the public key, and batch and anchor as Kafka values."""
    batch, head = seal(Head.at_genesis(GENESIS), RECORDS, 12, SEALED_AT, SIGNER)
    anchor, _ = append_anchor(Frontier(), anchor_origin("test.example"), 1_772_366_400_500, [head.checkpoint()], SIGNER)
    return SIGNER.public_key, encode(batch), encode_anchor(anchor)


def example() -> str:
    """Return the example as it is in docs/ledger.md."""
    batch, head = seal(Head.at_genesis(GENESIS), RECORDS, 12, SEALED_AT, SIGNER)
    anchor, after = append_anchor(
        Frontier(), anchor_origin("test.example"), 1_772_366_400_500, [head.checkpoint()], SIGNER
    )
    payloads = [batch.payload_hashes[at : at + 32] for at in (0, 32, 64)]
    leaves = [batch.leaf_hashes[at : at + 32] for at in (0, 32, 64)]
    lines = [
        f"public key      {SIGNER.public_key.hex()}",
        f"origin          {GENESIS.origin}",
        f"verifier key    {verifier_key(GENESIS.origin, SIGNER.public_key)}",
        f"topic id        {GENESIS.topic_id.hex()}",
        f"first offset    {GENESIS.first_offset}",
        f"genesis_hash    {GENESIS.hash().hex()}",
    ]
    previous = GENESIS.hash()
    for at, (key, value) in enumerate(zip(RECORDS.keys, RECORDS.values, strict=True)):
        time = RECORDS.append_times[at]
        data = struct.pack(">4sB32sQq", b"GLE1", RECORDS.flags[at], previous, RECORDS.offsets[at], time) + payloads[at]
        assert leaf_hash(data) == leaves[at]
        lines += [
            "",
            f"entry {at}         flags {RECORDS.flags[at]}, offset {RECORDS.offsets[at]}, append_time {time}",
            f"key             {'null' if key is None else key.hex()}",
            f"value           {'null' if value is None else value.hex() or 'empty'}",
            f"headers         {RECORDS.headers[at].hex()}",
            f"payload_hash    {payloads[at].hex()}",
            f"leaf_data       {data.hex()}",
            f"leaf_hash       {leaves[at].hex()}",
        ]
        previous = leaves[at]
    value = encode(batch)
    lines += [
        "",
        f"node 0-1        {node_hash(leaves[0], leaves[1]).hex()}",
        f"root            {head.frontier.root().hex()}",
        f"frontier        {batch.frontier.hex()}",
        "",
        f"key_lengths     {batch.key_lengths.hex()}",
        f"keys            {batch.keys.hex()}",
        f"offsets         {batch.offsets.hex()}",
        f"append_times    {batch.append_times.hex()}",
        f"header_lengths  {batch.header_lengths.hex()}",
        f"sealed batch    {len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}",
        f"begins          {value[:64].hex()}",
        "",
        "note:",
        *batch.note.splitlines(),
        "",
        f"anchor entry    {anchor.entry.hex()}",
        f"anchor root     {after.root().hex()}",
        "anchor note:",
        *anchor.note.splitlines(),
    ]
    return "```\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    print(example(), end="")
