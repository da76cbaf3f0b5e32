"""``grantledger run sweep``."""

from __future__ import annotations

from ...processors.policy import load_policy
from ...processors.sweep.sweeper import Sweeper
from ...runtime.process import on_stop_signal, serving
from ...runtime.settings import Settings
from ...runtime.sweep_store import SweepStore
from ...runtime.wiring import sealed_logs


def command(settings: Settings) -> None:
    """Query the store for overdue access every minute, and compare the result with the findings of the watch.

    If the watch disagrees twice in a row, that is a finding: sweep_difference. Access that several grants share is left
    to the watch.

    Exit codes: 0 stopped on request; 1 lost Kafka: restart it; 2 a setting or the policy is wrong.
    """
    sweeper = Sweeper(
        sealed_logs(settings),
        store=SweepStore(settings),
        policy=load_policy(settings.watch_policy),
        interval=settings.sweep_interval_seconds,
    )
    with serving("sweep", settings):
        on_stop_signal(sweeper.stop)
        sweeper.run()
