"""``grantledger watch``: run the watch."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from ..base.errors import EXIT_DEPENDENCY
from ..processors.access import SECOND
from ..processors.policy import load_policy
from ..processors.watch.app import WatchLostError, make_app, run_app
from ..processors.watch.clock import Clock, since_boot
from ..processors.watch.kafka_findings import KafkaFindings
from ..processors.watch.kafka_snapshots import KafkaSnapshots
from ..processors.watch.watcher import Watcher
from ..runtime.memory import give_back_freed_memory
from ..runtime.process import complain, serving
from ..runtime.settings import Settings, SettingsError
from ..runtime.wiring import known_schemas
from ..schemas.catalog import SchemaCatalog
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run the watch until SIGTERM or Ctrl-C: follow every grant, and report access that did not end on time.

    Findings go into access.findings, revoke commands into access.commands. Start several: one watches, the others
    stand by and take over within seconds.

    Exit codes: 0 stopped on request, 1 lost the brokers or was replaced by another watch (restart it), 2 a setting or
    the policy is wrong.
    """
    settings = settings_of(context)
    # Faust needs a folder, although nothing of ours is stored in it.
    with told(), TemporaryDirectory(prefix="grantledger-watch-") as folder, serving("watch", settings):
        _quieten()
        try:
            asyncio.run(_run(settings, Path(folder)))
        except WatchLostError as error:
            complain(str(error))
            raise typer.Exit(EXIT_DEPENDENCY) from error


async def _run(settings: Settings, folder: Path) -> None:
    cluster, deployment = settings.cluster(), settings.require_deployment()
    policy = load_policy(settings.watch_policy)
    # Scanning a million live grants for garbage again and again would cost more than everything else.
    gc.set_threshold(200_000, 50, 1_000)
    give_back_freed_memory()
    catalog = SchemaCatalog(known_schemas(settings))
    stop = asyncio.Event()
    findings = KafkaFindings(cluster, deployment, catalog, stopping=stop.is_set)
    snapshots = KafkaSnapshots(cluster, deployment, catalog, stopping=stop.is_set)
    bound = int(settings.watch_lag_bound_seconds * SECOND)
    watcher = Watcher(
        policy, deployment, findings, snapshots, catalog, lag_bound=bound,
        snapshot_every=int(settings.watch_snapshot_seconds * SECOND), keep_days=settings.watch_keep_days,
        clock=Clock(), boot=since_boot,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        app = make_app(cluster, deployment, folder, watcher, instance=settings.watch_instance)
    except (ValueError, OSError) as error:
        raise SettingsError(str(error)) from error
    await run_app(app, stop)


def _quieten() -> None:
    """Silence Faust and its Kafka client, which log every step; our own log lines contain what matters."""
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
