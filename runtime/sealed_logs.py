"""Access of a process to the sealed logs of its deployment."""

from __future__ import annotations

from collections.abc import Mapping

from ..kafka.sealed_log import SealedLogs
from ..kafka.sealed_log_findings import SYSTEM as READER
from ..kafka.sealed_log_findings import ProblemPublisher
from ..ledger.keys import LogKeys
from ..ledger.source_signature import SourceSigner
from .keys import load_log_keys
from .settings import Settings
from .source_keys import own_signer


def sealed_logs(
    settings: Settings,
    source: str,
    keys: LogKeys | None = None,
    signers: Mapping[str, SourceSigner] | None = None,
) -> SealedLogs:
    """Return the sealed logs.

    Args:
        source: the name by which the process signs its own events.
        keys: the public keys, if the caller has read them.
        signers: of a process that cannot read the key files, by source; see :func:`signers_of`.
    """
    cluster, deployment = settings.cluster(), settings.require_deployment()
    keys = keys or load_log_keys(settings)
    signers = signers or signers_of(settings, source)
    on_problem = ProblemPublisher(cluster, deployment, signers[READER])
    return SealedLogs(cluster, deployment, keys, on_problem, signers[source])


def signers_of(settings: Settings, source: str) -> dict[str, SourceSigner]:
    """Return the signers that a process needs: its own, and that of every reader."""
    return {name: own_signer(settings, name) for name in (READER, source)}
