"""Access of a process to the sealed logs of its deployment."""

from __future__ import annotations

from ..kafka.sealed_log import SealedLogs
from ..kafka.sealed_log_findings import ProblemPublisher
from ..ledger.keys import LogKeys
from .keys import load_public_key
from .settings import Settings


def sealed_logs(settings: Settings, public_key: bytes | None = None) -> SealedLogs:
    """Return the sealed logs.

    Args:
        public_key: of a process that has the private key. Other processes read it from its file.
    """
    cluster, deployment = settings.cluster(), settings.require_deployment()
    keys = LogKeys.single(public_key or load_public_key(settings))
    return SealedLogs(cluster, deployment, keys, ProblemPublisher(cluster, deployment))
