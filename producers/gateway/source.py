"""The sources of the gateway at work: their signers, adapters and rates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from ..adapters import ADAPTERS, DEFAULT_REDACTOR, Adapter, UnknownToolError, make_adapter
from ..kafka_record import RecordSigner
from ..redaction.redactor import Redactor
from ..source_reports import ReportedSource, SourceReports
from .config import GatewaySource
from .problems import ProblemError

LOG_SECONDS = 60.0
WAY = "gateway"
"""The name of this way in, in reports about records."""

log = structlog.get_logger("grantledger.gateway")


class Rate:
    """A limit of requests per second, with a burst of one second."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._most = max(1.0, per_second)
        self._left, self._at = self._most, clock()

    def take(self) -> None:
        """Count a request.

        Raises:
            ProblemError: 429, there were too many.
        """
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            wait = (1 - self._left) / self._per_second
            raise ProblemError(
                429, f"more than {self._per_second:g} requests per second (requests_per_second)", retry_after=wait
            )
        self._left -= 1


class SourceAtWork:
    """A source, its signer if it has one, what it redacts, and the adapter of its tool."""

    def __init__(
        self,
        config: GatewaySource,
        signer: RecordSigner | None = None,
        redactor: Redactor | None = DEFAULT_REDACTOR,
    ) -> None:
        self.config, self.signer = config, signer
        self.rate = Rate(config.requests_per_second)
        self.lock = asyncio.Lock()
        """One request at a time: an adapter may remember earlier records."""
        self._refused, self._log_at = 0, 0.0
        self.adapter: Adapter | None = None
        if config.tool is not None:
            self.adapter = make_adapter(
                config.tool, instance=config.instance, tenant=config.tenant, mapping=config.mapping
            )
        system = config.system or (self.adapter.SYSTEM if self.adapter else config.name)
        mapping = self.adapter.mapping if self.adapter else None
        self.reports = SourceReports(ReportedSource(system, config.instance, WAY, config.tenant, mapping))
        self.redact_by(redactor)

    def redact_by(self, redactor: Redactor | None) -> None:
        """Redact what comes from now on by other rules."""
        self.redactor = redactor
        if self.adapter is not None:
            self.adapter.redactor = redactor

    def note_refused(self, count: int, problem: str, field: str = "") -> None:
        """Log refused records, once per ``LOG_SECONDS``: a collector may not read answers."""
        self._refused += count
        if (now := time.monotonic()) >= self._log_at:
            log.warning(
                "records_refused",
                source=self.config.name,
                count=self._refused,
                problem=(f"{field}: " if field else "") + problem[:300],
            )
            self._refused, self._log_at = 0, now + LOG_SECONDS

    def adapter_of(self, tool: str | None) -> Adapter:
        """Return the adapter for the records of a tool; None: of whatever tool the source is for.

        Raises:
            ProblemError: 404, there is no such tool; 403, the source is not for it.
        """
        if tool is not None and tool not in (*ADAPTERS, self.config.tool):
            raise ProblemError(404, str(UnknownToolError(tool)))
        if self.adapter is None:
            raise ProblemError(403, "this credential is for our own events: POST /v1/events")
        if tool not in (None, self.config.tool):
            raise ProblemError(403, f"this credential is for {self.config.tool}: POST /ingest/{self.config.tool}")
        return self.adapter
