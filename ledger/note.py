"""Signed notes and checkpoints: https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .entry import HASH_SIZE
from .keys import Signer

ED25519 = b"\x01"
BATCH = b"\xffgrantledger/batch/v1"
"""Our own signature type for :class:`BatchFacts` (signed-note, "Signature types": FF and an identifier)."""
MAX_NOTE_BYTES = 1 << 20
MAX_SIZE = (1 << 63) - 1
SIGNATURE_LINE = "— "
_FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
"""Control characters except newline, and surrogates, which are not UTF-8 (signed-note, "Format")."""
_NOT_IN_NAMES = re.compile(r"[\s+]")


class NoteError(ValueError):
    """A note or checkpoint is malformed, or its signature is not valid."""


class OtherKeyError(NoteError):
    """No signature line of a note names the given key: other keys signed it, or the caller has the wrong key."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: origin, number of entries, and the 32-byte Merkle root over them (tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the signed text: three lines, no extension lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, body: str) -> Checkpoint:
        """Read a checkpoint body.

        Raises:
            NoteError: a line is malformed; the message names it.
        """
        lines = body.split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteError("a checkpoint has exactly three lines: origin, size, root")
        origin, size, root64, _ = lines
        if not origin:
            raise NoteError("the checkpoint's origin is empty")
        if not size.isascii() or not size.isdigit() or (size != "0" and size.startswith("0")):
            raise NoteError(f"the checkpoint's size {size!r} is not a plain decimal number")
        if len(size) > 19 or int(size) > MAX_SIZE:
            raise NoteError(f"the checkpoint's size has {len(size)} digits, more than a signed 64-bit number")
        root = _unbase64(root64, "the checkpoint's root")
        if len(root) != HASH_SIZE:
            raise NoteError(f"the checkpoint's root is {len(root)} bytes, not 32")
        return cls(origin, int(size), root)


def _unbase64(text: str, what: str) -> bytes:
    """Decode base64 in its one canonical form, so that any changed byte of a note is found."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError(f"{what} is not base64: {error}") from error
    if base64.b64encode(raw).decode() != text:
        raise NoteError(f"{what} is not canonical base64")
    return raw


def key_hash(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """Return the 4-byte key ID of a signature line (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def verifier_key(name: str, public_key: bytes) -> str:
    """Return the verifier key ``name+hash+base64`` for other people's verifiers (signed-note, "Verifier keys")."""
    return f"{name}+{key_hash(name, public_key).hex()}+{base64.b64encode(ED25519 + public_key).decode()}"


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """The facts about a batch that are signed in addition to the head after it (docs/ledger.md, "Checkpoint").

    Attributes:
        sealed_at: microseconds since 1970, by the sealer's clock.
        first_index: signed so that two batches cannot be presented as one with the sealing time of the second.
    """

    sealed_at: int
    first_index: int
    next_offset: int
    last_leaf: bytes

    def message(self, body: str) -> str:
        """Return the signed text."""
        # Read as a checkpoint, its third line is a number, never a root: neither signature passes for the other.
        leaf = base64.b64encode(self.last_leaf).decode()
        return f"grantledger batch v1\n{self.sealed_at}\n{self.first_index}\n{self.next_offset}\n{leaf}\n{body}"


_STATED = struct.Struct(">qQ")  # time of sealing and next offset, which precede the batch's signature


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer, batch: BatchFacts | None = None) -> str:
    """Return the checkpoint as a signed note; a second signature line of our own type signs the batch if given."""
    body, name = checkpoint.body(), checkpoint.origin
    signatures = [(name, key_hash(name, signer.public_key) + signer.sign(body.encode()))]
    if batch is not None:
        stated = _STATED.pack(batch.sealed_at, batch.next_offset)
        signature = signer.sign(batch.message(body).encode())
        signatures.append((name, key_hash(name, signer.public_key, BATCH) + stated + signature))
    return _join(body, signatures)


def _join(body: str, signatures: Sequence[tuple[str, bytes]]) -> str:
    lines = [f"{SIGNATURE_LINE}{name} {base64.b64encode(raw).decode()}\n" for name, raw in signatures]
    return f"{body}\n{''.join(lines)}"


def open_checkpoint(note: str, public_key: bytes) -> Checkpoint:
    """Verify a signed checkpoint with the log's public key and return it.

    Signatures by other keys, such as witnesses, are ignored (signed-note, "Signatures").

    Raises:
        NoteError: malformed, or without a valid signature by this key under the checkpoint's origin.
    """
    body, signatures = split_note(note)
    checkpoint = Checkpoint.parse(body)
    wanted = key_hash(checkpoint.origin, public_key)
    for name, raw in signatures:
        if name == checkpoint.origin and raw[:4] == wanted:
            _verify(public_key, raw[4:], body, f"{checkpoint.origin} size {checkpoint.size}")
            return checkpoint
    raise OtherKeyError(f"the checkpoint of {checkpoint.origin} has no signature by the given key")


def open_own_checkpoint(note: str, public_key: bytes) -> Checkpoint:
    """Verify a checkpoint that only the log signs and whose bytes must be unchanged.

    Raises:
        NoteError: as :func:`open_checkpoint`, or a signature line was added, removed or changed.
    """
    return _open_unchanged(note, public_key, [ED25519])[0]


def open_sealed_checkpoint(
    note: str, public_key: bytes, first_index: int, last_leaf: bytes
) -> tuple[Checkpoint, BatchFacts]:
    """Verify the checkpoint of a batch and the signed facts about the batch.

    Raises:
        NoteError: as :func:`open_own_checkpoint`, or the signature does not cover these facts.
    """
    checkpoint, (_, line) = _open_unchanged(note, public_key, [ED25519, BATCH])
    if len(line) < _STATED.size:
        raise NoteError(f"the second signature line under {checkpoint.origin} size {checkpoint.size} is too short")
    sealed_at, next_offset = _STATED.unpack_from(line)
    batch = BatchFacts(sealed_at, first_index, next_offset, last_leaf)
    what = f"the batch of {checkpoint.origin} from index {first_index} to size {checkpoint.size}"
    _verify(public_key, line[_STATED.size :], batch.message(checkpoint.body()), what)
    return checkpoint, batch


def _open_unchanged(note: str, public_key: bytes, kinds: Sequence[bytes]) -> tuple[Checkpoint, list[bytes]]:
    """Verify a note that must have exactly one signature of each of these types, in this order."""
    checkpoint = open_checkpoint(note, public_key)
    body, signatures = split_note(note)
    name = checkpoint.origin
    wanted = [(name, key_hash(name, public_key, kind)) for kind in kinds]
    if [(signer, raw[:4]) for signer, raw in signatures] != wanted or _join(body, signatures) != note:
        raise NoteError(f"the signature lines under {name} size {checkpoint.size} are not the ones that the log wrote")
    return checkpoint, [raw[4:] for _, raw in signatures]


def _verify(public_key: bytes, signature: bytes, message: str, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message.encode())
    except InvalidSignature as error:
        raise NoteError(f"the signature over {what} is not valid") from error


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return a note's text, with its final newline, and its signatures as (key name, 4-byte key ID and signature).

    Raises:
        NoteError: it is malformed or longer than 1,048,576 characters.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise NoteError(f"the note has {len(note)} characters, more than {MAX_NOTE_BYTES}")
    if bad := _FORBIDDEN.search(note):
        raise NoteError(f"the note has the character U+{ord(bad[0]):04X}, which is not allowed in a note")
    text, found, block = note.rpartition("\n\n")
    if not found or not block.endswith("\n"):
        raise NoteError("the note has no signature block")
    signatures = []
    for line in block[:-1].split("\n"):
        if not line.startswith(SIGNATURE_LINE):
            raise NoteError("a line of the signature block does not start with an em dash and a space")
        name, found, encoded = line[len(SIGNATURE_LINE) :].partition(" ")
        raw = _unbase64(encoded, f"the signature of {name!r}")
        if not found or not name or _NOT_IN_NAMES.search(name) or len(raw) < 5:
            raise NoteError("a signature line is not name, space, base64 of key ID and signature")
        signatures.append((name, raw))
    return text + "\n", signatures
