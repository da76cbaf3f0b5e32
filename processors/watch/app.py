"""The watch as a Faust app.

Faust provides the consumer group, in which one process watches a partition and the others stand by, the delivery of
sealed batches to an agent, and a timer. Everything else is ours: reading committed records only, from the
position of a snapshot (:mod:`.transport`); snapshots instead of Faust's tables and offsets (:mod:`.snapshot`); and
fenced transactions, so that a finding is published once although Faust delivers at least once (:mod:`.kafka_findings`).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import faust
import structlog
from confluent_kafka import KafkaException, Message
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP

from ...base.errors import DependencyError, GrantledgerError, UsageError
from ...base.health import HEALTH
from ...kafka.cluster import Cluster
from ...kafka.membership import CHECK_SECONDS, GroupState, group_state
from ...schemas.event import LIFECYCLE_TOPIC
from ...schemas.topics import MAX_SEALED_BYTES, sealed
from .daemon_call import call_in_daemon
from .joining import JOIN_SECONDS, JoiningGroup
from .shard import ONLY_SHARD, Shard
from .transport import Transport
from .watcher import Watcher

log = structlog.get_logger("grantledger.watch")

LOG = sealed(LIFECYCLE_TOPIC)
TICK_SECONDS = 0.1
"""Seconds between two checks of what is due."""
SESSION_SECONDS = 10.0
"""After this long without a heartbeat another process takes over."""
LAST_SECONDS = 8.0
"""Seconds for the last snapshot at a stop. The whole stop must fit into the limits of supervisors, often 20 to 30 s."""
NEVER_SECONDS = 1e9
"""Faust warns if nothing is committed for so long; the watch commits nothing."""


@dataclass(frozen=True, slots=True)
class DeliveredRecord:
    """A record from Faust with the methods of librdkafka's, which the verifier of sealed logs reads."""

    message: Any

    def value(self) -> bytes | None:
        """Return the value."""
        value: bytes | None = self.message.value
        return value

    def offset(self) -> int:
        """Return the offset."""
        return int(self.message.offset)

    def timestamp(self) -> tuple[int, int]:
        """Return the timestamp's type and the timestamp in milliseconds."""
        return self.message.timestamp_type, round(self.message.timestamp * 1000)


def make_app(
    cluster: Cluster, deployment: str, folder: Path, watcher: Watcher, *, instance: str = "", shard: Shard = ONLY_SHARD
) -> faust.App:
    """Return the app; nothing runs yet. A ValueError names an option that Faust does not support.

    Args:
        cluster: brokers, TLS and SASL of its librdkafka options are carried over.
        folder: where Faust may write temporary files.
        instance: a name that this process keeps across restarts, so that it resumes at once. Two processes with one
            name fence each other off.
        shard: the partition that is watched; the group's other partitions are not read.
    """
    group = shard.group(deployment)
    servers = str(cluster.options["bootstrap.servers"]).split(",")
    app = faust.App(
        group,
        broker=[f"kafka://{server.strip()}" for server in servers],
        broker_credentials=credentials_of(cluster.options),
        datadir=str(folder),
        consumer_group_instance_id=instance or None,
        key_serializer="raw",
        value_serializer="raw",
        store="memory://",
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_SEALED_BYTES // 8,  # compressed; a single larger record is delivered all the same
        broker_session_timeout=SESSION_SECONDS,
        broker_commit_livelock_soft_timeout=NEVER_SECONDS,
        broker_heartbeat_interval=SESSION_SECONDS / 5,
        stream_buffer_maxsize=2,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        topic_disable_leader=True,
        topic_partitions=1,
        autodiscover=False,
        web_enabled=False,
        debug=False,
    )
    taken_over, standing_by, joining = asyncio.Event(), asyncio.Event(), JoiningGroup()

    async def begin() -> int:
        await taken_over.wait()
        return watcher.position

    mine = TP(cluster.physical(LOG), shard.number)
    app.transport = Transport(app.conf.broker_consumer, app, loop=app.loop, mine=mine, begin=begin)
    records = app.topic(cluster.physical(LOG), key_type=bytes, value_type=bytes)

    @app.agent(records, concurrency=1)
    async def follow(stream: Any) -> None:
        async for event in stream.events():
            await watcher.take(cast(Message, DeliveredRecord(event.message)))

    @app.timer(TICK_SECONDS)  # type: ignore[untyped-decorator]
    async def tick() -> None:
        HEALTH.turned()
        await watcher.tick()

    @app.timer(CHECK_SECONDS)  # type: ignore[untyped-decorator]
    async def check_membership() -> None:
        if joining.is_overdue:
            await app.crash(DependencyError(f"Kafka has not let this process join its group for {JOIN_SECONDS:.0f} s"))
        if not standing_by.is_set():
            return
        found: list[GroupState] = []
        try:
            await call_in_daemon(lambda: found.append(group_state(cluster, group)))
        except KafkaException as error:
            log.warning("group_unknown", reason=error.args[0].str())
            return
        if any(state.forgotten([(LOG, shard.number)]) for state in found) and standing_by.is_set():
            await app.crash(DependencyError("this process stands by, and no other one watches: it must join again"))

    @app.on_partitions_assigned.connect  # type: ignore[arg-type]
    async def assigned(_app: Any, assigned: Any = (), *_: Any, **_more: Any) -> None:
        joining.ended()
        if mine not in assigned:
            log.info("standing_by")
            standing_by.set()
            HEALTH.settle("start", "judging")
            HEALTH.notes("assignment", "stands by: another watch is active")
            return
        standing_by.clear()
        HEALTH.settle("start", "assignment")
        if taken_over.is_set():
            watcher.resume()
        else:
            await watcher.take_over()
            taken_over.set()

    @app.on_partitions_revoked.connect  # type: ignore[arg-type]
    async def revoked(_app: Any, revoked: Any = (), *_: Any, **_more: Any) -> None:
        joining.began()
        HEALTH.waits("assignment", "waits for an assignment of partitions: the members of the group change")
        if mine in revoked:
            watcher.stand_by()

    return app


async def run_app(app: faust.App, stop: asyncio.Event, before_stop: Callable[[], Awaitable[None]]) -> None:
    """Run the app until ``stop`` is set. Raises GrantledgerError if the app failed.

    Args:
        before_stop: called at a clean stop, while the app still runs; abandoned after ``LAST_SECONDS``.
    """
    HEALTH.settle("start")
    HEALTH.waits("assignment", "waits for the first assignment of partitions")
    await app.start()
    try:
        waiting = asyncio.create_task(stop.wait())
        ended = asyncio.create_task(app.wait_until_stopped())
        await asyncio.wait((waiting, ended), return_when=asyncio.FIRST_COMPLETED)
        for task in (waiting, ended):
            task.cancel()
        reason = app.crash_reason
        if isinstance(reason, GrantledgerError):
            raise reason
        if reason is not None:
            raise DependencyError(f"the watch failed: {reason}") from reason
        if not stop.is_set():
            raise DependencyError("the watch stopped unexpectedly")
        try:
            await asyncio.wait_for(before_stop(), LAST_SECONDS)
        except TimeoutError:
            log.warning("last_snapshot_late", seconds=LAST_SECONDS, action="the next start reads more of the log")
    finally:
        await app.stop()


def credentials_of(options: Mapping[str, Any]) -> SSLCredentials | SASLCredentials | None:
    """Return the TLS and SASL options in the form that Faust expects. A UsageError names an unsupported option."""
    protocol = str(options.get("security.protocol", "plaintext")).lower()
    if protocol not in ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl"):
        raise UsageError(f"kafka_options: security.protocol {protocol} is not supported by the watch")
    context = None
    if protocol.endswith("ssl"):
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if options.get("ssl.certificate.location"):
            context.load_cert_chain(
                str(options["ssl.certificate.location"]),
                options.get("ssl.key.location"),
                options.get("ssl.key.password"),
            )
        if str(options.get("ssl.endpoint.identification.algorithm", "https")).lower() == "none":
            context.check_hostname = False
    if not protocol.startswith("sasl"):
        return SSLCredentials(context) if context is not None else None
    mechanism = str(options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN"))).upper()
    if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        raise UsageError(
            f"kafka_options: sasl.mechanism {mechanism} is not supported by the watch (PLAIN, SCRAM-SHA-…)"
        )
    return SASLCredentials(
        username=options.get("sasl.username"),
        password=options.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )
