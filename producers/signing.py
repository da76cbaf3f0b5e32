"""Signing for senders that are registered sources. It needs the package ``cryptography``.

Example::

    signer = source_signer("prod.example.com", Path("vault-eu-1.pem").read_bytes())
    with Client(options, system="vault", instance="eu-1", signer=signer) as client:
        …
"""

from ..kafka.source_signer import source_signer

__all__ = ["source_signer"]
