"""The gateway as a process: its keys, its producer, and its HTTP server."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn
from confluent_kafka import KafkaException, Producer

from ..base.errors import GrantledgerError
from ..base.health import HEALTH, Ask
from ..base.toml import ConfigError
from ..console.http_protocol import MOST_HEADER_BYTES, SECONDS_TO_STAY_IDLE, Connections, LimitedProtocol, ServerLoop
from ..kafka.client_log import CLIENT_LOG
from ..kafka.topics import check_lifecycle_shards
from ..producers.gateway.app import Gateway
from ..producers.gateway.body import Bodies
from ..producers.gateway.config import MIB, GatewayConfig, address_of
from ..producers.gateway.credentials import Credentials, Verify
from ..producers.gateway.delivery import RecordDelivery
from ..producers.gateway.source import SourceAtWork
from ..producers.gateway.spool import SpoolFile
from ..producers.gateway.syslog import SyslogListener
from ..producers.kafka_record import KafkaRecords
from ..producers.options import safe_options
from ..producers.source_reports import REPORT_SECONDS
from ..webhooks.signing import parse_signing_keys, verifies
from .event_schemas import schema_registry
from .redaction import Redactors
from .settings import Settings, SettingsError
from .source_keys import sender_signer
from .tcp_listener import server_tls, tcp_listener

MOST_CONNECTIONS = 1_000
SECONDS_TO_ANSWER = 10
"""At a stop, for requests that have begun."""
SECONDS_TO_FLUSH = 5.0
KAFKA_OPTIONS = {"message.timeout.ms": 0, "linger.ms": 5}
"""An event waits for Kafka without limit: after two seconds it is also on the spool."""

log = structlog.get_logger("grantledger.gateway")


class GatewayServer:
    """Serves the gateway.

    Args:
        load: returns the configuration, also for ``reload``.

    Raises:
        SettingsError, ConfigError: a file or an address cannot be used.
        SpoolError, UsageError: the spool cannot be used.
        RegistryError: there is a schema registry, and it does not answer.
    """

    def __init__(self, settings: Settings, load: Callable[[], GatewayConfig]) -> None:
        self._settings, self._load = settings, load
        config = self._config = load()
        self._stop, self._reload = threading.Event(), threading.Event()
        self._failure: GrantledgerError | None = None
        options = safe_options({**settings.kafka_client_options(), **KAFKA_OPTIONS})
        cluster = settings.cluster()
        sources, credentials = self._sources(config, {}), Credentials(config, _webhooks(config))
        self._tls = _tls(config, ssl.CERT_OPTIONAL)  # other sources have tokens
        self._syslog_tls = _tls(config, ssl.CERT_REQUIRED)
        records = KafkaRecords(options, settings.topic_prefix, settings.lifecycle_shards, schema_registry(settings))
        records.prepare()
        self._connections = _Connections(MOST_CONNECTIONS)
        self._at_work, self._syslog = sources, list[socket.socket]()
        self._listener = _listen(config.listen)
        try:
            self._syslog += [_listen(one.listen, udp=one.protocol == "udp") for one in config.syslog]
            spool = SpoolFile(config.spool_file or settings.data_dir / "gateway" / "spool.sqlite3")
            try:
                producer = Producer({**options, "error_cb": self._broker_error, "logger": CLIENT_LOG})
            except KafkaException as error:
                raise SettingsError(f"Kafka options: {error.args[0].str()} (kafka_options)") from error
            self._delivery = RecordDelivery(
                producer,
                spool,
                config.spool_mebibytes * MIB,
                check=lambda: check_lifecycle_shards(cluster),
                on_failure=self._fail,
            )
        except BaseException:
            for listener in (self._listener, *self._syslog):
                listener.close()
            raise
        self._gateway = Gateway(
            sources,
            credentials,
            Bodies(config.max_body_mebibytes * MIB, config.max_decoded_mebibytes * MIB),
            records=records,
            delivery=self._delivery,
            on_authenticated=lambda scope: self._connections.authenticated(scope["client"]),
        )

    @property
    def asks(self) -> Mapping[str, Ask]:
        """How to find what it waits for."""
        return {"delivery": self._delivery.condition}

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._listener.getsockname()[:2]
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def syslog_addresses(self) -> list[str]:
        """Where it takes syslog."""
        addresses = (listener.getsockname()[:2] for listener in self._syslog)
        return [
            f"{one.protocol} {host}:{port}" for one, (host, port) in zip(self._config.syslog, addresses, strict=True)
        ]

    def run(self) -> None:
        """Serve until ``stop``.

        Raises:
            GrantledgerError: the process must be started again.
        """
        server = uvicorn.Server(
            uvicorn.Config(
                self._gateway.app(),
                # No access log, and no logging setup by uvicorn: an address may contain what a sender chose.
                log_config=None,
                access_log=False,
                lifespan="off",
                http=cast("Any", self._connections.protocol),
                ws="none",
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                timeout_keep_alive=SECONDS_TO_STAY_IDLE,
                timeout_graceful_shutdown=SECONDS_TO_ANSWER,
                server_header=False,
                proxy_headers=False,  # nobody else decides who the client is
                ssl_context_factory=(lambda _config, _default: cast("ssl.SSLContext", self._tls))
                if self._tls
                else None,
            )
        )

        async def serve() -> None:
            listeners = [
                SyslogListener(one, listener, self._gateway, source_of=self._gateway.source_of, tls=self._syslog_tls)
                if one.protocol == "tls"
                else SyslogListener(one, listener, self._gateway, source_of=lambda _certificate: None)
                for one, listener in zip(self._config.syslog, self._syslog, strict=True)
            ]
            for one in listeners:
                await one.start()
            reporting = asyncio.create_task(self._gateway.report_every(REPORT_SECONDS))
            turning = asyncio.create_task(self._gateway.turn_every(1.0))
            HEALTH.settle("start")
            await server.serve(sockets=[self._listener])
            for one in listeners:
                await one.stop()
            reporting.cancel()
            turning.cancel()
            await self._gateway.report(last=True)

        self._delivery.start()

        def run() -> None:
            with asyncio.Runner(loop_factory=ServerLoop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, name="gateway-http", daemon=True)
        thread.start()
        log.info("listening", url=self.url, syslog=self.syslog_addresses, sources=len(self._config.source))
        while not self._stop.wait(0.5) and thread.is_alive():
            if self._reload.is_set():
                self._reload.clear()
                self._reloaded()
        server.should_exit = True
        thread.join()
        self._delivery.close(SECONDS_TO_FLUSH)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let ``run`` answer the requests that have begun, and return."""
        self._stop.set()

    def reload(self) -> None:
        """Read the sources and tokens of the file again, soon; a signal handler may call it."""
        self._reload.set()

    def _reloaded(self) -> None:
        """Use the sources and tokens that the file has now; the old ones if it is wrong."""
        try:
            config = self._load()
            sources, credentials = self._sources(config, self._at_work), Credentials(config, _webhooks(config))
        except GrantledgerError as error:
            log.error("not_reloaded", reason=str(error))
            return
        self._at_work = sources
        self._gateway.use(sources, credentials)
        kept = {"source", "token"}
        changed = self._config.model_dump(exclude=kept) != config.model_dump(exclude=kept)
        log.info("reloaded", sources=len(sources), restart_needed=changed)

    def _sources(self, config: GatewayConfig, known: Mapping[str, SourceAtWork]) -> dict[str, SourceAtWork]:
        """Return the sources of a configuration. One that is the same as before keeps what its adapter remembers."""
        redactors = Redactors(self._settings)
        signers = {path: sender_signer(self._settings, path) for one in config.source if (path := one.source_key)}
        found = {}
        for one in config.source:
            before = known.get(one.name)
            source = before if before is not None and before.config == one else SourceAtWork(one)
            source.signer = signers[one.source_key] if one.source_key else None
            source.redact_by(redactors.of(one.redaction))
            found[one.name] = source
        return found

    def _fail(self, error: GrantledgerError) -> None:
        self._failure = error
        self._stop.set()

    def _broker_error(self, error: Any) -> None:
        self._delivery.connection_problem(error)


class _Connections(Connections):
    """Connections that know the certificate of their client."""

    def protocol(self, *arguments: Any, **options: Any) -> LimitedProtocol:
        """Return the protocol of a new connection."""
        return _Protocol(self, *arguments, **options)


class _Protocol(LimitedProtocol):
    """A connection whose requests carry the verified certificate of the client, as ``ssl`` describes it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As in uvicorn."""
        super().connection_made(transport)
        if connection := transport.get_extra_info("ssl_object"):
            self.app_state = {**self.app_state, "client_certificate": connection.getpeercert()}


def _webhooks(config: GatewayConfig) -> Mapping[str, Verify]:
    found: dict[str, Verify] = {}
    for number, one in enumerate(config.source):
        if one.webhook_secret is not None:
            place = f"source.{number}.webhook_secret"
            keys = parse_signing_keys(one.webhook_secret.read(place), place)
            found[one.name] = partial(verifies, keys)
    return found


def _tls(config: GatewayConfig, clients: ssl.VerifyMode) -> ssl.SSLContext | None:
    if config.tls_certificate is None:
        return None
    with _named("tls_certificate or tls_key"):
        context = server_tls(config.tls_certificate, cast("Path", config.tls_key))
    if config.client_ca is not None:
        with _named("client_ca"):
            context.load_verify_locations(config.client_ca)
        context.verify_mode = clients
    return context


@contextmanager
def _named(key: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{key}: cannot be used: {error.strerror or error}") from error


def _listen(listen: str, *, udp: bool = False) -> socket.socket:
    address = address_of(listen)
    try:
        if udp:
            listener = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind(address)
            return listener
        return tcp_listener(address)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"the gateway cannot listen on {listen}: {reason} (listen)") from error
