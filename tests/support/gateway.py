"""The gateway in this process: its ASGI application, and a Kafka that only remembers."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from grantledger.base.errors import GrantledgerError
from grantledger.kafka.errors import KafkaUnavailableError
from grantledger.producers.adapters import ADAPTERS, make_adapter
from grantledger.producers.gateway.app import Gateway
from grantledger.producers.gateway.body import Bodies
from grantledger.producers.gateway.config import GatewayConfig
from grantledger.producers.gateway.credentials import Credentials, token_digest
from grantledger.producers.gateway.delivery import RecordDelivery
from grantledger.producers.gateway.source import SourceAtWork
from grantledger.producers.gateway.spool import SpoolFile
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile
from grantledger.producers.kafka_record import KafkaRecords, RecordSigner
from grantledger.producers.redaction.file import make_redactor
from grantledger.runtime.children import ChildSpec
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import decode
from grantledger.webhooks.signing import verifies

from .fork_server import ForkedChild
from .pipeline import Pipeline
from .waiting import wait_for

TOKENS = {"bot": "glt_bot", **{tool: f"glt_{tool}" for tool in ADAPTERS}}
SOURCES: list[dict[str, Any]] = [
    {"name": "bot", "system": "deploy-bot", "instance": "eu-1", "tenant": "payments"},
    *({"name": tool, "tool": tool, "instance": "i-1"} for tool in ADAPTERS),
]
WEBHOOK_KEY = b"w" * 32
CATALOG = SchemaCatalog((event_schema(),))


def imported_ids(tool: str, content: bytes, instance: str | None = "i-1") -> list[str]:
    """Return the ids that ``import`` gives."""
    ids: list[str] = []
    importer = Importer(make_adapter(tool, instance=instance), lambda event: ids.append(event.event_id))
    importer.run(InputFile("file", io.BytesIO(content)))
    return ids


def teleport_log(folder: Path, samples: Path) -> list[str]:
    """Write sample records of Teleport to ``audit.log``, and return the ids that ``import`` gives them."""
    lines = (samples / "teleport" / "audit_fixtures.jsonl").read_bytes()
    (folder / "audit.log").write_bytes(lines)
    return imported_ids("teleport", lines)


class ReportedError:
    """An error as librdkafka reports it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def str(self) -> str:
        return self._text


class FakeKafka:
    """A producer. While it is ``away`` nothing is acknowledged.

    ``refuses`` is the error of every record, and ``refuses_next`` are those of the next records; empty for none.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.away = False
        self.refuses = ""
        self.refuses_next: deque[str] = deque()
        self.refusals = 0
        self._waiting: deque[tuple[dict[str, Any], Callable[..., None]]] = deque()
        self._changed = threading.Condition()

    def produce(self, topic: str, *, on_delivery: Callable[..., None], **record: Any) -> None:
        with self._changed:
            self._waiting.append(({"topic": topic, **record}, on_delivery))
            self._changed.notify()

    def poll(self, seconds: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting and not self.away, seconds)
            ready = [] if self.away else [self._waiting.popleft() for _ in range(len(self._waiting))]
        for record, report in ready:
            if refusal := self.refuses_next.popleft() if self.refuses_next else self.refuses:
                self.refusals += 1
                report(ReportedError(refusal), None)
            else:
                self.records.append(record)
                report(None, None)
        return len(ready)

    def flush(self, seconds: float) -> int:
        return len(self._waiting)

    def back(self) -> None:
        with self._changed:
            self.away = False
            self._changed.notify()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The acknowledged events."""
        return [decode(one["value"], CATALOG, 0) for one in self.records]


class GatewayInProcess:
    """A gateway. ``post`` and ``get`` answer a request without a network; use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        kafka: FakeKafka | None = None,
        sources: list[dict[str, Any]] = SOURCES,
        signers: Mapping[str, RecordSigner] | None = None,
        spool_bytes: int = 1 << 20,
        spool_after: float = 30.0,
        most_body: int = 1 << 20,
        most_decoded: int = 4 << 20,
        clock: Callable[[], float] | None = None,
        answers: Callable[[], bool] = lambda: True,
    ) -> None:
        self.kafka = kafka or FakeKafka()
        self.failures: list[GrantledgerError] = []
        self.spool_path = folder / "spool.sqlite3"
        tokens = [{"source": name, "sha256": token_digest(token)} for name, token in TOKENS.items()]
        known = {one["name"] for one in sources}
        config = GatewayConfig.model_validate(
            {
                "listen": "127.0.0.1:0",
                "client_ca": "/ca.pem",
                "source": sources,
                "token": [one for one in tokens if one["source"] in known],
            }
        )
        webhooks = {one.name: partial(verifies, (WEBHOOK_KEY,)) for one in config.source}
        clocks = {"clock": clock} if clock is not None else {}

        def check() -> None:
            if not answers():
                raise KafkaUnavailableError("no broker answers")

        self.delivery = RecordDelivery(
            self.kafka,
            SpoolFile(self.spool_path),
            spool_bytes,
            check=check,
            on_failure=self.failures.append,
            spool_after=spool_after,
        )
        at_work = {
            one.name: SourceAtWork(one, (signers or {}).get(one.name), make_redactor(one.redaction or "default"))
            for one in config.source
        }
        self.gateway = Gateway(
            at_work,
            Credentials(config, webhooks, **clocks),
            Bodies(most_body, most_decoded),
            records=KafkaRecords({}),
            delivery=self.delivery,
        )
        self.app = self.gateway.app()
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://gateway")

    def __enter__(self) -> GatewayInProcess:
        self.delivery.start()
        self.wait_for_kafka()
        return self

    def __exit__(self, *_: object) -> None:
        self.delivery.close(0)
        self._runner.close()

    def wait_for_kafka(self) -> None:
        """Nothing is sent directly before the first check of Kafka."""
        wait_for(lambda: self.delivery.state().startswith("Kafka answers") or None, "Kafka answers", pause=0.01)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the event loop of the gateway."""
        self._runner.run(work)

    def request(self, *requests: tuple[str, str, Mapping[str, Any]]) -> list[httpx.Response]:
        """Answer requests at the same time, each a method, a path and the arguments of httpx."""

        async def send() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self._client.request(method, path, **arguments) for method, path, arguments in requests)
            )

        return self._runner.run(send())

    def post(
        self,
        path: str,
        body: Any,
        *,
        source: str | None = "bot",
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Post bytes, or a value as JSON, with the token of a source."""
        found = {"authorization": f"Bearer {TOKENS[source]}"} if source else {}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not isinstance(body, bytes):
            found["content-type"] = "application/json"
        [response] = self.request(("POST", path, {"content": content, "headers": {**found, **(headers or {})}}))
        return response

    def credentials_with(self, changed: Mapping[str, Any]) -> Credentials:
        """Return the credentials of another configuration."""
        config = {"client_ca": "/ca.pem", "source": SOURCES, **changed}
        return Credentials(GatewayConfig.model_validate(config), {})

    def get(self, path: str) -> httpx.Response:
        [response] = self.request(("GET", path, {}))
        return response


class GatewayProcess:
    """The process, configured with the sources of the tests."""

    def __init__(self, pipeline: Pipeline, folder: Path, *lines: str, **keys: Path) -> None:
        """Write the configuration. ``lines``: further ones; ``keys``: private keys of sources, by name."""
        self._pipeline = pipeline
        self.config = folder / "gateway.toml"
        text = ['listen = "127.0.0.1:0"', *lines]
        for source in SOURCES:
            members = {**source, **({"source_key": str(keys[source["name"]])} if source["name"] in keys else {})}
            text += ["[[source]]", *(f"{name} = {json.dumps(value)}" for name, value in members.items())]
        for name, token in TOKENS.items():
            text += ["[[token]]", f'source = "{name}"', f'sha256 = "{token_digest(token)}"']
        self.config.write_text("\n".join(text) + "\n")
        self.config.chmod(0o600)
        environment = {**pipeline.environment, "GRANTLEDGER_GATEWAY_CONFIG": str(self.config)}
        self.child = ForkedChild(ChildSpec("gateway", ("run", "gateway")), pipeline.data_dir, environment)
        pipeline.children["gateway"] = self.child
        self.url = ""

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.child.start()
        self.url = wait_for(self._listening, "the gateway listens")
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def post(self, path: str, body: Any, source: str = "bot") -> httpx.Response:
        """Post bytes, or a value as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post(path, content=content, headers={"authorization": f"Bearer {TOKENS[source]}"})

    def _listening(self) -> str | None:
        log = self.child.log_path.read_text("utf-8", "replace")
        if not self.child.alive():
            raise AssertionError(f"the gateway has ended: {log}")
        found = [json.loads(line) for line in log.splitlines() if '"listening"' in line]
        return found[0]["url"] if found else None
