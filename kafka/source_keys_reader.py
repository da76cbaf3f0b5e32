"""Keeps the registered sources up to date for a process that decides whether records are signed."""

from __future__ import annotations

import time

from ..ledger.source_keys import NOTICE_MS, SourceKeys
from ..schemas.event import FINDINGS_TOPIC
from .sealed_log import SealedLogReader, SealedLogs, SealedLogStoppedError

CLOCK_TOLERANCE_MS = 5_000
"""How far a broker's clock may be behind ours."""


class SourceKeysReader:
    """Reads ``access.findings`` to its end whenever a record is newer than the registrations that were read.

    Its calls block, once a minute at most. They raise KafkaUnavailableError if the brokers do not answer, and
    SealedLogStoppedError if the sealed log of findings is discontinuous, or registrations are missing.
    """

    def __init__(self, logs: SealedLogs) -> None:
        self._logs, self.keys = logs, SourceKeys(logs.deployment, logs.cluster.topic_prefix)
        """What was read so far; a process that reads the findings itself may add to it."""
        self._reader: SealedLogReader | None = None
        self._complete_until_ms = 0

    def until(self, append_time_ms: int) -> SourceKeys:
        """Return the keys by which records appended up to a time can be judged."""
        if append_time_ms >= self._complete_until_ms:
            began_ms = int(time.time() * 1000)
            if self._reader is None:
                self._reader = self._logs.open(FINDINGS_TOPIC)
            for _, record in self._reader.read_records():
                self.keys.learn(record)
            check_registrations(self._logs, self._reader, self.keys)
            self._complete_until_ms = began_ms - CLOCK_TOLERANCE_MS + NOTICE_MS
        return self.keys

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()


def check_registrations(logs: SealedLogs, findings: SealedLogReader, keys: SourceKeys) -> None:
    """Check that no registration can be missing, after everything in ``access.findings`` was read.

    Otherwise unsigned events of a registered source would count.

    Raises:
        SealedLogStoppedError: the log lost its beginning, or it has no operator although this process has a source key.
    """
    findings.check_whole()
    if logs.signer is not None and not keys.complete:
        raise SealedLogStoppedError(
            f"{logs.cluster.physical(FINDINGS_TOPIC)} does not register the pipeline's own sources, as "
            "`grantledger init` does: check deployment and topic_prefix, or restore the topic from a copy"
        )
