"""Signed notes and checkpoints: published notes open, malformed ones are refused, any changed byte of ours is found."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.note import (
    BatchFacts,
    Checkpoint,
    NoteError,
    key_hash,
    open_checkpoint,
    open_sealed_checkpoint,
    sign_checkpoint,
    split_note,
    verifier_key,
)
from support.small_ledger import SIGNER

# golang.org/x/mod/sumdb/note, the package's example.
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_NOTE = (
    f"{GO_TEXT}\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# C2SP signed-note: the key's public half is not published, but the shape is the specification's own.
C2SP_NOTE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
# litewitness (FiloSottile/litetlog): a log whose key name is its origin, as ours.
SIGSUM_ORIGIN = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
SIGSUM_1 = (
    f"{SIGSUM_ORIGIN}\n1\nKgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— {SIGSUM_ORIGIN} "
    "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=\n"
)
SIGSUM_3 = (
    f"{SIGSUM_ORIGIN}\n3\nRcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=\n\n— {SIGSUM_ORIGIN} "
    "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=\n"
)
# The armored witness CI log with a witness's line, from transparency-dev/distributor; its key name is not its origin.
WITNESSED = (
    "transparency.dev/armored-witness/firmware_transparency/ci/3\n59\nkOFMkeamIdrYFLx5zbWFhflak6dlEEDOU++fxYEZMBw=\n\n"
    "— transparency.dev-aw-ftlog-ci-3 "
    "P2iVIt3Jsaha3E2i0MHdKZ6fgYJTgXO86nUsxKPVq6uTwRSclTSh/ELnDGbNL+XDyD3EkWIdL2AGGNmbN7IN2rB/7gE=\n"
    "— ArmoredWitness-weathered-rain "
    "CnjfIAAAAABnGRrHjQi7IZQqVea4YnU/ADsv844r1ezGjvubUy1MMJm4as9bRiT70xNWQ67RCA76LMy7SdX4qJNIzL3eSS1BGFWqCw==\n"
)
WITNESSED_KEY = "transparency.dev-aw-ftlog-ci-3+3f689522+Aa1Eifq6rRC8qiK+bya07yV1fXyP156pEMsX7CFBC6gg"

ORIGIN = "test.example/access.lifecycle/0/0"
CHECKPOINT = Checkpoint(ORIGIN, 3, hashlib.sha256(b"root").digest())
FIRST_INDEX = 1
LEAF = hashlib.sha256(b"leaf").digest()
FACTS = BatchFacts(1_772_366_400_000_001, FIRST_INDEX, 12, LEAF)
NOTE = sign_checkpoint(CHECKPOINT, SIGNER, FACTS)
KEY = SIGNER.public_key


def known_key(text: str) -> tuple[str, bytes]:
    """Name and public key of a published verifier key, which is the one that we print for them."""
    name, _, encoded = text.split("+", 2)
    key = base64.b64decode(encoded)[1:]
    assert verifier_key(name, key) == text
    return name, key


def test_the_go_example_note_is_parsed_and_its_signature_is_valid() -> None:
    name, key = known_key(GO_VERIFIER)
    text, signatures = split_note(GO_NOTE)
    assert (name, text) == ("PeterNeumann", GO_TEXT)
    [(signer, raw)] = signatures
    assert signer == name
    assert raw[:4] == key_hash(name, key) == bytes.fromhex("c74f20a3")
    Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], text.encode())


def test_we_sign_as_go_does() -> None:
    """Ed25519 is deterministic: from the example's published private key comes the example's signature."""
    seed = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
    signer = LocalSigner(Ed25519PrivateKey.from_private_bytes(seed))
    raw = key_hash("PeterNeumann", signer.public_key) + signer.sign(GO_TEXT.encode())
    assert GO_NOTE.endswith(f"— PeterNeumann {base64.b64encode(raw).decode()}\n")


def test_a_text_may_have_blank_lines() -> None:
    text, signatures = split_note(C2SP_NOTE)
    assert text.endswith("raggio di sole:\n\ned è subito sera.\n")
    assert [name for name, _ in signatures] == ["quasimodo.example/salvatore"]


@pytest.mark.parametrize(("note", "size"), [(SIGSUM_1, 1), (SIGSUM_3, 3)])
def test_checkpoints_of_another_implementation_open(note: str, size: int) -> None:
    checkpoint = open_checkpoint(note, SIGSUM_KEY)
    assert (checkpoint.origin, checkpoint.size) == (SIGSUM_ORIGIN, size)
    assert note.startswith(checkpoint.body() + "\n")


def test_the_last_byte_of_a_published_signature_counts() -> None:
    """The variant with 6gx= for 6go= is in litewitness's tests as an invalid signature."""
    with pytest.raises(NoteError):
        open_checkpoint(SIGSUM_3.replace("6go=", "6gx="), SIGSUM_KEY)


def test_a_key_name_that_is_not_the_origin_is_not_ours() -> None:
    name, key = known_key(WITNESSED_KEY)
    text, signatures = split_note(WITNESSED)
    Ed25519PublicKey.from_public_bytes(key).verify(signatures[0][1][4:], text.encode())
    assert signatures[0][0] == name
    with pytest.raises(NoteError, match="has no signature by the given key"):
        open_checkpoint(WITNESSED, key)


def test_lines_of_witnesses_are_passed_over() -> None:
    witness = WITNESSED.splitlines(keepends=True)[-1]
    body, block = NOTE.split("\n\n")
    for note in (NOTE + witness, f"{body}\n\n{witness}{block}"):
        assert open_checkpoint(note, KEY) == CHECKPOINT
        with pytest.raises(NoteError, match="are not the ones that the log wrote"):  # in a batch nobody else signs
            open_sealed_checkpoint(note, KEY, FIRST_INDEX, LEAF)


def _ordinary_verifier(note: str, name: str, key: bytes) -> str:
    """What golang.org/x/mod/sumdb/note does with one known key, in a few lines: unknown key ids are ignored."""
    text, _, block = note.rpartition("\n\n")
    text += "\n"
    wanted = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
    verified = 0
    for line in block.removesuffix("\n").split("\n"):
        assert line.startswith("— ")
        who, encoded = line[2:].split(" ")
        raw = base64.b64decode(encoded, validate=True)
        if (who, raw[:4]) == (name, wanted):
            Ed25519PublicKey.from_public_bytes(key).verify(raw[4:], text.encode())
            verified += 1
    assert verified == 1
    return text


def test_the_private_line_of_the_batch_does_not_disturb_an_ordinary_verifier() -> None:
    assert _ordinary_verifier(NOTE, ORIGIN, KEY) == CHECKPOINT.body()
    assert NOTE.count("\n— ") == 2


def message_of(facts: BatchFacts) -> str:
    leaf = base64.b64encode(facts.last_leaf).decode()
    numbers = f"{facts.sealed_at}\n{facts.first_index}\n{facts.next_offset}"
    return f"grantledger batch v1\n{numbers}\n{leaf}\n{CHECKPOINT.body()}"


def test_the_line_of_the_batch_byte_by_byte() -> None:
    _, signatures = split_note(NOTE)
    (_, first), (name, second) = signatures
    assert first[:4] == hashlib.sha256(f"{ORIGIN}\n".encode() + b"\x01" + KEY).digest()[:4]
    kind = b"\xff" + b"grantledger/batch/v1"
    assert name == ORIGIN
    assert second[:4] == hashlib.sha256(f"{ORIGIN}\n".encode() + kind + KEY).digest()[:4]
    assert int.from_bytes(second[4:12], "big", signed=True) == FACTS.sealed_at
    assert int.from_bytes(second[12:20], "big") == FACTS.next_offset
    Ed25519PublicKey.from_public_bytes(KEY).verify(second[20:], message_of(FACTS).encode())
    assert len(second) == 4 + 8 + 8 + 64


def test_the_signature_of_a_batch_is_not_a_checkpoint() -> None:
    """What the log key signs of a batch can never be shown as a checkpoint: its third line is no root."""
    with pytest.raises(NoteError):
        Checkpoint.parse(message_of(FACTS))


def test_a_note_without_the_batch_is_a_checkpoint_but_no_sealed_one() -> None:
    note = sign_checkpoint(CHECKPOINT, SIGNER)
    assert open_checkpoint(note, KEY) == CHECKPOINT
    with pytest.raises(NoteError, match="are not the ones that the log wrote"):
        open_sealed_checkpoint(note, KEY, FIRST_INDEX, LEAF)


def test_a_line_of_the_batch_that_is_too_short_is_refused() -> None:
    lines = NOTE.split("\n")
    key_id = base64.b64decode(lines[-2].rpartition(" ")[2])[:4]
    lines[-2] = f"— {ORIGIN} {base64.b64encode(key_id + b'short').decode()}"
    with pytest.raises(NoteError, match="too short"):
        open_sealed_checkpoint("\n".join(lines), KEY, FIRST_INDEX, LEAF)


def test_the_line_of_another_checkpoint_does_not_fit() -> None:
    other = sign_checkpoint(Checkpoint(ORIGIN, 4, CHECKPOINT.root), SIGNER, FACTS)
    mixed = "\n".join([*NOTE.split("\n")[:5], *other.split("\n")[5:]])
    assert open_checkpoint(mixed, KEY) == CHECKPOINT
    with pytest.raises(NoteError, match=r"the signature over the batch of .* is not valid"):
        open_sealed_checkpoint(mixed, KEY, FIRST_INDEX, LEAF)


def test_first_index_and_last_leaf_of_a_batch_are_signed() -> None:
    assert open_sealed_checkpoint(NOTE, KEY, FIRST_INDEX, LEAF) == (CHECKPOINT, FACTS)
    with pytest.raises(NoteError, match="from index 2 to size 3 is not valid"):
        open_sealed_checkpoint(NOTE, KEY, FIRST_INDEX + 1, LEAF)
    with pytest.raises(NoteError, match="from index 1 to size 3 is not valid"):
        open_sealed_checkpoint(NOTE, KEY, FIRST_INDEX, bytes(32))


@given(st.data())
def test_no_single_change_of_our_note_goes_unseen(data: st.DataObject) -> None:
    """Change, delete or insert one character anywhere: the note no longer opens."""
    at = data.draw(st.integers(0, len(NOTE) - 1))
    kind = data.draw(st.sampled_from(["change", "delete", "insert"]))
    new = "" if kind == "delete" else data.draw(st.characters(codec="utf-8") | st.sampled_from("+/=AB01 \n—"))
    changed = NOTE[:at] + new + NOTE[at + (kind != "insert") :]
    if changed == NOTE:
        return
    with pytest.raises(NoteError):
        open_sealed_checkpoint(changed, KEY, FIRST_INDEX, LEAF)


def _resigned(body: str, name: str = ORIGIN) -> str:
    raw = key_hash(name, KEY) + SIGNER.sign(body.encode())
    return f"{body}\n— {name} {base64.b64encode(raw).decode()}\n"


ROOT = base64.b64encode(CHECKPOINT.root).decode()


@pytest.mark.parametrize(
    "body",
    [
        f"{ORIGIN}\n3\n{ROOT}\nextension\n",
        f"{ORIGIN}\n3\n",
        f"\n3\n{ROOT}\n",
        f"{ORIGIN}\n03\n{ROOT}\n",
        f"{ORIGIN}\n-3\n{ROOT}\n",
        f"{ORIGIN}\n+3\n{ROOT}\n",
        f"{ORIGIN}\n٣\n{ROOT}\n",
        f"{ORIGIN}\n\n{ROOT}\n",
        f"{ORIGIN}\n{2**63}\n{ROOT}\n",
        f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
        f"{ORIGIN}\n3\n{ROOT[:-1]}\n",
        f"{ORIGIN}\n3\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{ORIGIN}\n3\n{base64.urlsafe_b64encode(bytes([255] * 32)).decode()}\n",
        f"{ORIGIN}\n3\n{ROOT[:-2]}{chr(ord(ROOT[-2]) + 1)}=\n",
        f"{ORIGIN}\n3\nünsinn\n",
        f"{ORIGIN}\r\n3\n{ROOT}\n",
        f"{ORIGIN}\n3\n{ROOT}\n\n",
    ],
)
def test_malformed_checkpoints_are_refused_however_well_signed(body: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(_resigned(body), KEY)


GOOD_LINE = NOTE.split("\n\n")[1].split("\n")[0]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        CHECKPOINT.body(),
        f"{CHECKPOINT.body()}\n",
        f"{CHECKPOINT.body()}{GOOD_LINE}\n",
        NOTE.removesuffix("\n"),
        f"{CHECKPOINT.body()}\n{GOOD_LINE[2:]}\n",
        f"{CHECKPOINT.body()}\n- {GOOD_LINE[2:]}\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\r\n",
        f"{CHECKPOINT.body()}\n— {ORIGIN}\n",
        f"{CHECKPOINT.body()}\n—  AAAAAAA=\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n— a+b {base64.b64encode(bytes(68)).decode()}\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n— a\u2003b {base64.b64encode(bytes(68)).decode()}\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n— a {base64.b64encode(bytes(4)).decode()}\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n— a !!!!\n",
        f"{CHECKPOINT.body()}\n{GOOD_LINE}\n— \ud800 {base64.b64encode(bytes(68)).decode()}\n",
        f"{CHECKPOINT.body()}\x00\n{GOOD_LINE}\n",
        "x" * (1 << 20) + NOTE,
    ],
)
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(note, KEY)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(NoteError, match="has no signature by the given key"):
        open_checkpoint(NOTE, LocalSigner.generate().public_key)


@given(st.text(max_size=200))
def test_no_text_gives_anything_but_a_note_error(text: str) -> None:
    for note in (text, NOTE + text, text + NOTE):
        try:
            open_sealed_checkpoint(note, KEY, FIRST_INDEX, LEAF)
        except NoteError:
            pass
        else:
            assert note == NOTE


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_checkpoint_bodies_come_back(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert Checkpoint.parse(checkpoint.body()) == checkpoint
