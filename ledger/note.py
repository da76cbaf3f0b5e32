"""Signed notes and checkpoints, as the public formats have them: C2SP signed-note v1 and tlog-checkpoint v1."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .entry import HASH_SIZE
from .keys import Signer

ED25519 = b"\x01"
"""Signature type of the key hash (signed-note, "Signature types")."""
SEALED_AT = b"\xffgrantledger/sealed-at/v1"
"""Private signature type (FF and an identifier): i64 microseconds, then Ed25519 over the time and the body."""
MAX_NOTE_BYTES = 1 << 20
SIGNATURE_LINE = "— "


class NoteError(ValueError):
    """A note or checkpoint that is malformed, or whose signature does not hold."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its origin, how many entries, and the 32-byte Merkle root over them."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """Return the text that is signed: three lines, no extension lines."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, body: str) -> Checkpoint:
        """Read a checkpoint body.

        Raises:
            NoteError: says which line is wrong.
        """
        lines = body.split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteError("a checkpoint has exactly three lines: origin, size, root")
        origin, size, root64, _ = lines
        if not origin:
            raise NoteError("the checkpoint's origin is empty")
        if not size.isascii() or not size.isdigit() or (size != "0" and size.startswith("0")):
            raise NoteError(f"the checkpoint's size {size!r} is not a plain decimal number")
        try:
            root = base64.b64decode(root64, validate=True)
        except binascii.Error as error:
            raise NoteError(f"the checkpoint's root is not base64: {error}") from error
        if len(root) != HASH_SIZE or base64.b64encode(root).decode() != root64:
            raise NoteError("the checkpoint's root is not 32 bytes of canonical base64")
        return cls(origin, int(size), root)


def key_hash(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """Return the 4 bytes that name a key in a signature line (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + kind + public_key).digest()[:4]


def verifier_key(name: str, public_key: bytes) -> str:
    """Return the verifier key string ``name+hash+base64`` that others paste into their verifiers."""
    return f"{name}+{key_hash(name, public_key).hex()}+{base64.b64encode(ED25519 + public_key).decode()}"


def parse_verifier_key(text: str) -> tuple[str, bytes]:
    """Return name and 32-byte Ed25519 public key of a verifier key string.

    Raises:
        NoteError: it is malformed, of another signature type, or its hash does not fit.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise NoteError("a verifier key is name+hash+base64")
    name, stated, encoded = parts
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise NoteError(f"the verifier key of {name} is not base64: {error}") from error
    if raw[:1] != ED25519 or len(raw) != 33:
        raise NoteError(f"the verifier key of {name} is not an Ed25519 key")
    if key_hash(name, raw[1:]).hex() != stated:
        raise NoteError(f"the verifier key of {name} states hash {stated}, its key has another")
    return name, raw[1:]


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer, sealed_at_micros: int | None = None) -> str:
    """Return the checkpoint as a signed note; the key name is the origin.

    Args:
        sealed_at_micros: microseconds since 1970. When given, a second signature line of a private type binds the time
            to the checkpoint; verifiers that do not know the type pass over it, as signed-note demands.
    """
    body, name = checkpoint.body(), checkpoint.origin
    lines = [_signature_line(name, key_hash(name, signer.public_key) + signer.sign(body.encode()))]
    if sealed_at_micros is not None:
        signature = signer.sign(_timed_message(body, sealed_at_micros))
        stamp = sealed_at_micros.to_bytes(8, "big", signed=True)
        lines.append(_signature_line(name, key_hash(name, signer.public_key, SEALED_AT) + stamp + signature))
    return f"{body}\n{''.join(lines)}"


def _signature_line(name: str, raw: bytes) -> str:
    return f"{SIGNATURE_LINE}{name} {base64.b64encode(raw).decode()}\n"


def _timed_message(body: str, sealed_at_micros: int) -> bytes:
    # As a checkpoint its root line would be an origin, which is never base64: neither signature can pass for the other.
    return f"grantledger sealed-at v1\n{sealed_at_micros}\n{body}".encode()


def open_checkpoint(note: str, public_key: bytes) -> Checkpoint:
    """Verify a signed checkpoint with the log's public key and return what it says.

    Lines of other signers (witnesses) are passed over, as the format demands.

    Raises:
        NoteError: malformed, not signed by this key under the checkpoint's origin, or the signature does not hold.
    """
    body, signatures = split_note(note)
    checkpoint = Checkpoint.parse(body)
    wanted = key_hash(checkpoint.origin, public_key)
    for name, raw in signatures:
        if name == checkpoint.origin and raw[:4] == wanted:
            try:
                Ed25519PublicKey.from_public_bytes(public_key).verify(raw[4:], body.encode())
            except InvalidSignature as error:
                raise NoteError(
                    f"the signature over {checkpoint.origin} size {checkpoint.size} is not valid"
                ) from error
            return checkpoint
    raise NoteError(f"no signature of the key of {checkpoint.origin} stands under its checkpoint")


def open_sealed_checkpoint(note: str, public_key: bytes) -> tuple[Checkpoint, int]:
    """Verify a signed checkpoint and the time of sealing that is signed with it.

    Returns:
        The checkpoint, and when it was sealed in microseconds since 1970 by the sealer's clock.

    Raises:
        NoteError: as :func:`open_checkpoint`, or the signed time is missing or its signature does not hold.
    """
    checkpoint = open_checkpoint(note, public_key)
    body, signatures = split_note(note)
    wanted = key_hash(checkpoint.origin, public_key, SEALED_AT)
    for name, raw in signatures:
        if name == checkpoint.origin and raw[:4] == wanted and len(raw) == 4 + 8 + 64:
            micros = int.from_bytes(raw[4:12], "big", signed=True)
            _verify(
                public_key,
                raw[12:],
                _timed_message(body, micros),
                f"time of {checkpoint.origin} size {checkpoint.size}",
            )
            return checkpoint, micros
    raise NoteError(f"no signed time of sealing stands under the checkpoint of {checkpoint.origin}")


def _verify(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature as error:
        raise NoteError(f"the signature over {what} is not valid") from error


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Return a note's text, with its final newline, and its signatures as (key name, 4-byte hash and signature).

    Raises:
        NoteError: it is malformed or larger than 1 MiB.
    """
    if len(note) > MAX_NOTE_BYTES:
        raise NoteError(f"the note has {len(note)} characters, more than {MAX_NOTE_BYTES}")
    text, found, block = note.rpartition("\n\n")
    if not found or not block.endswith("\n"):
        raise NoteError("the note has no signature block")
    signatures = []
    for line in block[:-1].split("\n"):
        if not line.startswith(SIGNATURE_LINE):
            raise NoteError("a line of the signature block does not start with an em dash and a space")
        name, found, encoded = line[len(SIGNATURE_LINE) :].partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise NoteError(f"the signature of {name!r} is not base64: {error}") from error
        if not found or not name or len(raw) < 5:
            raise NoteError("a signature line is not: name, space, base64 of key hash and signature")
        signatures.append((name, raw))
    return text + "\n", signatures
