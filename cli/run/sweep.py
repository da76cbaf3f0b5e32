"""``grantledger run sweep``."""

from __future__ import annotations

from functools import partial

from ...processors.sweep.sweeper import Sweeper
from ...processors.watch_policy import load_policy
from ...runtime.process import run_process
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings
from ...runtime.store_access import ask_store, is_live
from ...schemas.own_sources import SWEEP


def command(settings: Settings) -> None:
    """Query the store for overdue access every minute, and compare the result with the findings of the watch.

    If they differ in two sweeps in a row, that is a finding: sweep_difference. Access that several grants share is left
    to the watch. Numbers of senders that are missing are a finding as well (sequence_gap), and sources that were added
    and never heard (source_never_heard).

    Exit codes: 0 stopped on request; 1 lost Kafka: restart it; 2 a setting or the policy is wrong.
    """
    sweeper = Sweeper(
        sealed_logs(settings, SWEEP),
        is_live=partial(is_live, settings),
        open_store=partial(ask_store, settings, read_only=False),
        policy=load_policy(settings.watch_policy),
        interval=settings.sweep_interval_seconds,
    )
    run_process("sweep", settings, sweeper.run, sweeper.stop)
