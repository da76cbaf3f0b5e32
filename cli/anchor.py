"""``grantledger anchor``: run the anchor."""

from __future__ import annotations

import typer

from ..processors.anchor import Anchorer
from ..runtime.keys import load_signer
from ..runtime.process import on_stop_signal, serving
from ..sinks.file_target import FileTarget
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run the anchor until SIGTERM or Ctrl-C: every minute the heads of all logs go into a signed entry, and outside.

    One process a deployment: a second one takes the first one's place.

    Exit codes: 0 stopped when asked, 1 lost its brokers or its place (start it again), 2 a setting is wrong, 3 a log
    became shorter or a head does not verify, and a person must look.
    """
    settings = settings_of(context)
    with told():
        cluster, deployment = settings.cluster(), settings.require_deployment()
        signer = load_signer(settings)
        with serving("anchor", settings):
            targets = [FileTarget(settings.anchor_path)] if "file" in settings.anchor_targets else []
            anchorer = Anchorer(cluster, deployment, signer, targets, interval=settings.anchor_interval_seconds)
            on_stop_signal(anchorer.stop)
            anchorer.run()
