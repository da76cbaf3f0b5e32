"""``grantledger run watch``."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

import structlog

from ...processors.access import SECOND
from ...processors.watch.app import make_app, run_app
from ...processors.watch.clock import WatchClock
from ...processors.watch.findings import SYSTEM, digest_of
from ...processors.watch.kafka_findings import KafkaFindings
from ...processors.watch.kafka_snapshots import KafkaSnapshots
from ...processors.watch.manifest_signature import ManifestSignature
from ...processors.watch.shard import Shard
from ...processors.watch.watcher import Watcher
from ...processors.watch_policy import load_policy
from ...runtime.data_folder import make_folder
from ...runtime.event_schemas import schema_catalog
from ...runtime.memory import return_freed_memory
from ...runtime.process import serving
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings, SettingsError
from ...runtime.source_keys import own_signer
from ...runtime.watch_progress import write_progress
from ...runtime.watches import watch_name

log = structlog.get_logger("grantledger.watch")


def command(settings: Settings) -> None:
    """Follow every grant and report access that did not end on time.

    Findings go to access.findings, revoke commands to access.commands. Several may run, each with its own
    GRANTLEDGER_WATCH_INSTANCE: one watches, the others stand by and take over within seconds. With several lifecycle
    shards, each shard needs a watch, with its own GRANTLEDGER_WATCH_SHARD.

    Exit codes: 0 stopped on request; 1 lost Kafka or was fenced off: restart it; 2 a setting or the policy is wrong;
    3 the sealed log contradicts itself.
    """
    labels = {"shard": str(settings.watch_shard)} if settings.lifecycle_shards > 1 else {}
    with serving(watch_name(settings), settings, labels):
        for name in ("faust", "mode", "aiokafka"):  # they log every step; our own log has what matters
            logging.getLogger(name).setLevel(logging.CRITICAL)
        asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    cluster, deployment = settings.cluster(), settings.require_deployment()
    policy = load_policy(settings.watch_policy)
    # Scanning a million live grants for garbage again and again would cost more than everything else.
    gc.set_threshold(200_000, 50, 1_000)
    return_freed_memory()
    catalog = schema_catalog(settings)
    stop = asyncio.Event()
    logs = sealed_logs(settings, SYSTEM)
    shard = Shard(settings.watch_shard, settings.lifecycle_shards)
    findings = KafkaFindings(logs, catalog, policy, shard=shard, stopping=stop.is_set)
    signature = ManifestSignature(deployment, own_signer(settings, SYSTEM).signer, findings.own_public_keys)
    snapshots = KafkaSnapshots(cluster, catalog, signature, policy=digest_of(policy), shard=shard, stopping=stop.is_set)
    bound = int(settings.watch_lag_bound_seconds * SECOND)
    watcher = Watcher(
        policy, deployment, findings, snapshots, catalog, lag_bound=bound,
        snapshot_every=int(settings.watch_snapshot_seconds * SECOND), keep_days=settings.watch_keep_days,
        clock=WatchClock(), shard=shard,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    folder = settings.data_dir / "run" / "faust"  # Faust requires one and stores nothing of ours in it
    make_folder(folder)
    try:
        app = make_app(cluster, deployment, folder, watcher, instance=settings.watch_instance, shard=shard)
    except (ValueError, OSError) as error:
        raise SettingsError(str(error)) from error
    progress = asyncio.create_task(_write_progress(settings, watcher))
    try:
        await run_app(app, stop, watcher.store_last_snapshot)
    finally:
        progress.cancel()
        findings.close()


async def _write_progress(settings: Settings, watcher: Watcher) -> None:
    """Write every second how far the watch has judged. Without the file, only the status lacks it."""
    name, written, failed = watch_name(settings), 0.0, False
    while True:
        if watcher.judged_until != written:
            try:
                write_progress(settings.data_dir, name, watcher.judged_until)
                written, failed = watcher.judged_until, False
            except OSError as error:
                if not failed:
                    log.warning("progress_not_written", reason=str(error), action="the status may show trouble")
                failed = True
        await asyncio.sleep(1.0)
