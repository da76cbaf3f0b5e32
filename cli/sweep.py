"""``grantledger sweep``: run the sweep."""

from __future__ import annotations

import typer

from ..processors.sweep.sweeper import Sweeper
from ..processors.watch.policy import DEFAULT, read_policy
from ..runtime.process import on_stop_signal, serving
from ..runtime.sweep_store import SweepStore
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run the sweep until SIGTERM or Ctrl-C: every minute, ask the store in SQL what is overdue.

    Where the watch says otherwise twice in a row, that is itself a finding: sweep_difference. Access that several
    grants share is left to the watch.

    Exit codes: 0 stopped when asked, 1 lost its brokers (start it again), 2 a setting is wrong.
    """
    settings = settings_of(context)
    with told():
        policy = read_policy(settings.watch_policy) if settings.watch_policy else DEFAULT
        sweeper = Sweeper(
            settings.cluster(),
            settings.require_deployment(),
            store=SweepStore(settings),
            policy=policy,
            interval=settings.sweep_interval_seconds,
        )
        with serving("sweep", settings):
            on_stop_signal(sweeper.stop)
            sweeper.run()
