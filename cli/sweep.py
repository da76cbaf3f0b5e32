"""``grantledger sweep``: run the sweep."""

from __future__ import annotations

import typer

from ..processors.policy import load_policy
from ..processors.sweep.sweeper import Sweeper
from ..runtime.process import on_stop_signal, serving
from ..runtime.sweep_store import SweepStore
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run the sweep until SIGTERM or Ctrl-C: every minute, query the store for overdue access.

    If the watch disagrees twice in a row, that is a finding: sweep_difference. Access that several grants share is left
    to the watch.

    Exit codes: 0 stopped on request, 1 lost the brokers (restart it), 2 a setting is wrong.
    """
    settings = settings_of(context)
    with told():
        sweeper = Sweeper(
            settings.cluster(),
            settings.require_deployment(),
            store=SweepStore(settings),
            policy=load_policy(settings.watch_policy),
            interval=settings.sweep_interval_seconds,
        )
        with serving("sweep", settings):
            on_stop_signal(sweeper.stop)
            sweeper.run()
