"""The signer of a registered source, from its private key."""

from __future__ import annotations

from ..ledger.keys import LocalSigner
from ..ledger.source_signature import SourceSigner


def source_signer(deployment: str, pem: bytes, passphrase: bytes | None = None) -> SourceSigner:
    """Return the signer of a source.

    Args:
        deployment: to whose ledger the records go. A signature is worth nothing elsewhere.
        pem: the private key, PKCS#8, as `grantledger sources add` writes it.

    Raises:
        KeyFormatError: not an Ed25519 private key in PEM, or the passphrase is missing, wrong or not needed.
    """
    return SourceSigner(deployment, LocalSigner.from_pem(pem, passphrase))
