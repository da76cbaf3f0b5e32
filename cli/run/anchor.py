"""``grantledger run anchor``."""

from __future__ import annotations

from ...processors.anchor import Anchorer
from ...runtime.keys import load_signers
from ...runtime.process import run_process
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings
from ...schemas.own_sources import ANCHOR
from ...sinks.file_target import FileTarget


def command(settings: Settings) -> None:
    """Anchor the heads of all logs: every minute, write one signed entry with all of them to every external target.

    Run one per deployment: a second one fences off the first.

    A log that is rolled back or does not verify is no longer anchored, with a critical finding; the others continue.

    Exit codes: 0 stopped on request; 1 lost Kafka or was fenced off: restart it; 2 a setting is wrong; 3 the last
    anchor or every log does not verify: a person must investigate.
    """
    signers = load_signers(settings)
    logs = sealed_logs(settings, ANCHOR, signers.keys)
    targets = [FileTarget(settings.anchor_path)] if "file" in settings.anchor_targets else []
    anchorer = Anchorer(logs, signers.newest, targets, interval=settings.anchor_interval_seconds)
    run_process("anchor", settings, anchorer.run, anchorer.stop)
