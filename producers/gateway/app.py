"""The ASGI application of the gateway: its routes, and the way of a request through it."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ...base.errors import GrantledgerError
from ...base.health import HEALTH
from ...schemas.rules import InvalidEventError
from ..kafka_record import KafkaRecords
from . import metrics, openapi, otlp
from .answers import Outcome, Stamp, own_events_answer, tool_records_answer
from .body import Bodies
from .credentials import Credentials, refused
from .delivery import RETRY_AFTER_SECONDS, RecordDelivery
from .own_events import Refused, given_events, read_events
from .problems import MEDIA_TYPE, ProblemError
from .source import SourceAtWork
from .tool_records import RequestMapper, check_media_type

INLINE_BYTES = 64 * 1024
"""A larger body is read in a thread, so that it does not delay others."""

log = structlog.get_logger("grantledger.gateway")


class Gateway:
    """Answers requests.

    Args:
        sources: by name.
        records: makes Kafka records.
        on_authenticated: is called with the ASGI scope of a request that has a valid credential.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceAtWork],
        credentials: Credentials,
        bodies: Bodies,
        *,
        records: KafkaRecords,
        delivery: RecordDelivery,
        on_authenticated: Callable[[Mapping[str, Any]], None] = lambda scope: None,
    ) -> None:
        self._access = sources, credentials
        self._leaving: list[SourceAtWork] = []
        """Sources that are not in use any more, and about which there is something to report."""
        self._bodies = bodies
        self._records, self._delivery, self._on_authenticated = records, delivery, on_authenticated

    def use(self, sources: Mapping[str, SourceAtWork], credentials: Credentials) -> None:
        """Use other sources and credentials from the next request on."""
        kept = list(sources.values())
        self._leaving += [one for one in self._access[0].values() if one not in kept]
        self._access = sources, credentials

    def app(self) -> Any:
        """Return the ASGI application."""
        app = FastAPI(
            title="grantledger gateway",
            description=openapi.DESCRIPTION,
            version="1",
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        app.add_api_route("/v1/events", self.events, methods=["POST"], response_model=None, **openapi.EVENTS)
        app.add_api_route("/ingest/{tool}", self.ingest, methods=["POST"], response_model=None, **openapi.INGEST)
        app.add_api_route("/ingest/{tool}", self.verification, methods=["GET"], response_model=None, **openapi.VERIFY)
        # Some senders append names, such as Teleport's session.ID.log.
        app.add_api_route("/ingest/{tool}/{rest:path}", self.ingest, methods=["POST"], include_in_schema=False)
        app.add_api_route("/v1/logs", self.logs, methods=["POST"], response_model=None, **openapi.LOGS)
        app.add_api_route("/livez", self.livez, methods=["GET"], response_model=None, **openapi.LIVEZ)
        app.add_api_route("/readyz", self.readyz, methods=["GET"], response_model=None, **openapi.READYZ)
        app.add_exception_handler(HTTPException, _http_problem)
        openapi.complete(app.openapi())
        return app

    async def livez(self) -> Response:
        """Answer while the process serves requests."""
        return PlainTextResponse("alive\n")

    async def readyz(self) -> Response:
        """Answer 200 while events are accepted, and say where they go."""
        found = self._delivery.condition()
        if found.waits:
            return PlainTextResponse(f"not ready: {found.text}\n", 503, {"Retry-After": "10"})
        return PlainTextResponse(f"ready: {found.text}\n")

    async def events(self, request: Request) -> Response:
        """Take our own events: one or a list, as JSON, JSON lines or CloudEvents."""
        return await self._answered(request, "/v1/events", self._events)

    async def _events(self, request: Request, source: SourceAtWork, body: bytes) -> Response:
        if source.config.system is None:
            raise ProblemError(403, f"this credential is for the records of a tool: POST /ingest/{source.config.tool}")
        text, stamp = self._bodies.decoded(body), self._stamp(source)
        outcome = await _in_thread(text, lambda: self._own_events(request.headers, source, text, stamp))
        where = await self._stored(source, outcome)
        return JSONResponse(own_events_answer(outcome, where), 207 if outcome.refused_count else 200)

    async def ingest(self, request: Request, tool: str) -> Response:
        """Take the records of a tool as it sends them, in any envelope that `import` knows."""

        async def handle(request: Request, source: SourceAtWork, body: bytes) -> Response:
            adapter = source.adapter_of(tool)
            check_media_type(request.headers.get("content-type", ""))
            text = self._bodies.decoded(body)
            outcome = await self._mapped(source, text, RequestMapper(adapter, self._stamp(source)).read)
            return JSONResponse(tool_records_answer(outcome, await self._stored(source, outcome)))

        return await self._answered(request, "/ingest", handle)

    async def verification(self, request: Request, tool: str) -> Response:
        """Answer the challenge by which Okta checks who owns the address of an event hook."""

        async def handle(request: Request, source: SourceAtWork, _body: bytes) -> Response:
            source.adapter_of(tool)
            challenge = request.headers.get("x-okta-verification-challenge", "")
            if not challenge:
                raise ProblemError(400, "GET is only for Okta's verification: X-Okta-Verification-Challenge is missing")
            return JSONResponse({"verification": challenge[:1000]})

        return await self._answered(request, "/ingest", handle)

    async def logs(self, request: Request) -> Response:
        """Take OTLP logs whose bodies are the records of a tool."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()

        async def handle(request: Request, source: SourceAtWork, body: bytes) -> Response:
            records = RequestMapper(source.adapter_of(None), self._stamp(source))
            text = self._bodies.decoded(body)
            outcome = await self._mapped(
                source, text, lambda text: records.read_each(otlp.log_bodies(text, media_type))
            )
            await self._stored(source, outcome)
            first = str(outcome.refused[0]["problem"]) if outcome.refused else ""
            return Response(otlp.answer(outcome.refused_count, first, media_type), media_type=media_type)

        response = await self._answered(request, "/v1/logs", handle)
        if media_type == otlp.PROTOBUF and response.status_code != 200:
            detail = json.loads(bytes(response.body))["detail"]
            headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
            return Response(otlp.status(detail), response.status_code, headers, otlp.PROTOBUF)
        return response

    async def _mapped(self, source: SourceAtWork, text: bytes, read: Callable[[bytes], Outcome]) -> Outcome:
        async with source.lock:
            return await _in_thread(text, lambda: read(text))

    def _stamp(self, source: SourceAtWork) -> Stamp:
        return Stamp(self._records, source.signer, datetime.now(UTC))

    @staticmethod
    def _own_events(headers: Mapping[str, str], source: SourceAtWork, text: bytes, stamp: Stamp) -> Outcome:
        outcome = Outcome()
        for index, found in read_events(given_events(text, headers), source.config, stamp.received_at):
            outcome.given += 1
            event_id, refusal = None, found
            if not isinstance(found, Refused):
                try:
                    if source.redactor is not None:
                        found = source.redactor.event(found)  # noqa: PLW2901
                    outcome.records.append(stamp.record(found))
                    event_id = found.event_id
                    outcome.counts.add_mapped(found.source.instance)
                except InvalidEventError as error:
                    refusal = Refused(index, error.problem, error.field)
            outcome.event_ids.append(event_id)
            if event_id is None and isinstance(refusal, Refused):
                outcome.refuse(refusal.shown())
                outcome.counts.failed += 1
        return outcome

    async def map_messages(self, name: str, messages: Sequence[bytes]) -> Outcome:
        """Return what the records of a tool become in messages that nobody answers."""
        source = self._source(name)
        mapper = RequestMapper(source.adapter_of(None), self._stamp(source))
        async with source.lock:
            outcome = await _in_thread(b"".join(messages), lambda: mapper.read_each(messages))
        self._count_refused(source, outcome)
        return outcome

    async def store_mapped(self, name: str, outcome: Outcome) -> None:
        """Store what ``map_messages`` returned. Raises ProblemError if that is not possible now."""
        await self._deliver(self._source(name), outcome)

    async def report(self, *, last: bool = False) -> None:
        """Store what became of the records of each source since the last call."""
        leaving, self._leaving = self._leaving, []
        for source in [*self._access[0].values(), *leaving]:
            stamp = self._stamp(source)
            events = source.reports.take(last=last or source in leaving)
            try:
                await self._delivery.deliver([stamp.record(event) for event in events])
            except (ProblemError, GrantledgerError) as error:  # these counts are lost
                log.warning("not_reported", source=source.config.name, reason=str(error))

    @staticmethod
    async def turn_every(seconds: float) -> None:
        """Report again and again that the event loop turns."""
        while True:
            HEALTH.turned()
            await asyncio.sleep(seconds)

    async def report_every(self, seconds: float) -> None:
        """Report again and again."""
        while True:
            await asyncio.sleep(seconds)
            await self.report()

    def source_of(self, certificate: Mapping[str, Any] | None) -> str | None:
        """Return the source with a name of a verified client certificate."""
        return self._access[1].by_certificate(certificate)

    def _source(self, name: str) -> SourceAtWork:
        if name not in self._access[0]:
            raise ProblemError(403, f"there is no source {name} any more")
        return self._access[0][name]

    async def _stored(self, source: SourceAtWork, outcome: Outcome) -> str:
        """Store the events of a request, count them, and return where they are."""
        self._count_refused(source, outcome)
        if outcome.is_refused:
            source.reports.add(outcome.counts)
            given = outcome.given
            detail = "the record is refused" if given == 1 else f"all {given} records are refused"
            raise ProblemError(422, detail, errors=outcome.refused)
        return await self._deliver(source, outcome)

    @staticmethod
    def _count_refused(source: SourceAtWork, outcome: Outcome) -> None:
        metrics.RECORDS.labels(source.config.name, "refused").inc(outcome.refused_count)
        if outcome.refused:
            first = outcome.refused[0]
            source.note_refused(outcome.refused_count, str(first["problem"]), str(first.get("field", "")))

    async def _deliver(self, source: SourceAtWork, outcome: Outcome) -> str:
        name = source.config.name
        where = await self._delivery.deliver([*outcome.records, *outcome.reports])
        source.reports.add(outcome.counts)
        skipped = outcome.skipped.total()
        metrics.RECORDS.labels(name, "mapped").inc(outcome.given - outcome.refused_count - skipped)
        for reason, count in outcome.skipped.items():
            metrics.SKIPPED.labels(name, reason).inc(count)
        if outcome.records:
            metrics.EVENTS.labels(name, where).inc(len(outcome.records))
            metrics.LAST_EVENT.labels(name).set_to_current_time()
        return where

    async def _answered(
        self, request: Request, route: str, handle: Callable[[Request, SourceAtWork, bytes], Awaitable[Response]]
    ) -> Response:
        """Return the answer of a route. All errors end here, because their texts may quote a record."""
        began = time.monotonic()
        try:
            with self._bodies.room() as taken:
                source, body = await self._admitted(request, taken)
                response = await handle(request, source, body)
            metrics.SECONDS.labels(route).observe(time.monotonic() - began)
        except ProblemError as error:
            if error.status == 401:
                metrics.UNAUTHENTICATED.inc()
            response = problem_response(error)
        except GrantledgerError as error:  # the schema registry does not answer
            log.error("request_failed", route=route, reason=str(error))
            response = problem_response(ProblemError(503, str(error), retry_after=RETRY_AFTER_SECONDS))
        except Exception as error:
            lines = "".join(traceback.format_tb(error.__traceback__))
            log.error("request_failed", route=route, error=type(error).__name__, lines=lines)
            response = problem_response(ProblemError(500, "an error of the gateway; its log has the place"))
        metrics.REQUESTS.labels(route, response.status_code).inc()
        return response

    async def _admitted(self, request: Request, taken: list[int]) -> tuple[SourceAtWork, bytes]:
        """Return the source of a request, and its body. Without a token or certificate, nothing is parsed."""
        sources, given = self._access
        certificate = request.scope.get("state", {}).get("client_certificate")
        name = given.by_header(request.headers.get("authorization")) or given.by_certificate(certificate)
        if name is None and not given.is_webhook(request.headers):
            raise refused("a token is required: Authorization: Bearer …, or basic authentication; or a certificate")
        if name is not None:
            self._begin(sources[name], request)
        body = await self._bodies.read(request, taken)
        if name is None:
            name = given.by_signature(request.query_params.get("source"), request.headers, body)
            self._begin(sources[name], request)
        return sources[name], body

    def _begin(self, source: SourceAtWork, request: Request) -> None:
        self._on_authenticated(request.scope)
        source.rate.take()


async def _in_thread(body: bytes, work: Callable[[], Outcome]) -> Outcome:
    return await asyncio.to_thread(work) if len(body) > INLINE_BYTES else work()


def problem_response(error: ProblemError) -> Response:
    """Return an error as an answer."""
    return JSONResponse(error.body(), error.status, error.headers, MEDIA_TYPE)


async def _http_problem(_request: Request, error: Exception) -> Response:
    """Answer an unknown path or method."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    allowed = headers.get("Allow")
    detail = f"this route takes {allowed}" if allowed else "there is no such route: /openapi.json lists them"
    return problem_response(ProblemError(status, detail, headers=headers))
