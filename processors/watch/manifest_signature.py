"""The signature of a snapshot: whoever can write to ``access.watch`` must not be able to change what the watch knows.

A manifest begins with the id of a source key of ``grantledger-watch`` (8 bytes) and its Ed25519 signature (64 bytes).
The signature covers the deployment, the topic, the key of the record, and the rest of the manifest, which has the
SHA-256 of every part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from ...ledger.entry import with_length
from ...ledger.keys import Signer
from ...ledger.source_signature import KEY_ID_SIZE, SIGNATURE_SIZE, is_signed_by, key_id_of
from ...schemas.topics import WATCH_TOPIC

PREFIX = b"GLW1"
"""Separates these signatures from all others by the same key."""
MAX_MANIFEST_BYTES = 4 << 20
"""Enough for 40,000 parts."""
_SIZE = KEY_ID_SIZE + SIGNATURE_SIZE


class SnapshotUnusableError(ValueError):
    """A snapshot is not ours, or it is damaged, incomplete, or of another log or format."""


@dataclass(frozen=True, slots=True)
class ManifestSignature:
    """Signs manifests, and verifies them.

    Attributes:
        signer: the watch's own source key.
        public_keys: returns the keys whose signatures count.
    """

    deployment: str
    signer: Signer
    public_keys: Callable[[], Collection[bytes]]

    def sign(self, key: str, content: bytes) -> bytes:
        """Return the manifest of a snapshot, for a record with this key."""
        if _SIZE + len(content) > MAX_MANIFEST_BYTES:
            raise SnapshotUnusableError(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes")
        return key_id_of(self.signer.public_key) + self.signer.sign(self._message(key, content)) + content

    def verified(self, key: str, manifest: bytes) -> bytes:
        """Return the content of a manifest.

        Raises:
            SnapshotUnusableError: it is too large, or no valid key signed it.
        """
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise SnapshotUnusableError(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes")
        signature, content = manifest[:_SIZE], manifest[_SIZE:]
        message = self._message(key, content)
        if not any(is_signed_by(public_key, signature, message) for public_key in self.public_keys()):
            raise SnapshotUnusableError("the watch has not signed it")
        return content

    def _message(self, key: str, content: bytes) -> bytes:
        values = (self.deployment.encode(), WATCH_TOPIC.encode(), key.encode(), content)
        return PREFIX + b"".join(map(with_length, values))
