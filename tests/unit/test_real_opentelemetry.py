"""The Python SDK of OpenTelemetry sends log records to the gateway: real requests, retries and answers."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from support.gateway import imported_ids
from support.served_gateway import TOKEN, ServedGateway, served

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gateway.md"


@pytest.fixture(scope="module")
def lines(samples: Path) -> list[bytes]:
    return (samples / "teleport" / "audit_fixtures.jsonl").read_bytes().splitlines()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[ServedGateway]:
    with served(tmp_path, "teleport") as running:
        yield running


@contextmanager
def sender(gateway: ServedGateway, token: str = TOKEN) -> Iterator[LoggerProvider]:
    """A provider as an application makes it, with the settings of the page. At the end, it sends what is left."""
    [block] = re.findall(r"```\n(OTEL_.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    text = block.replace("https://gateway.example.com:8443", gateway.url).replace("TOKEN", token)
    with mock.patch.dict(os.environ, dict(line.split("=", 1) for line in text.splitlines())):
        exporter = OTLPLogExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    try:
        yield provider
    finally:
        provider.shutdown()


def emit(provider: LoggerProvider, bodies: list[Any]) -> None:
    logger = provider.get_logger("audit")
    for body in bodies:
        logger.emit(LogRecord(timestamp=1, body=body))


@pytest.mark.parametrize("kind", ["text", "map"])
def test_log_records_become_the_events_of_import(gateway: ServedGateway, lines: list[bytes], kind: str) -> None:
    with sender(gateway) as provider:
        emit(provider, [one.decode() if kind == "text" else json.loads(one) for one in lines])
    expected = imported_ids("teleport", b"\n".join(lines))
    assert [event["event_id"] for event in gateway.kafka.events] == expected and expected


def test_after_503_the_sdk_sends_again_and_nothing_is_doubled(
    gateway: ServedGateway, lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Kafka refuses one event of the batch: the others are stored twice, with the same ids.

    The SDK would drop the batch at once if ``Retry-After`` were past its limit, which is here the default.
    """
    gateway.kafka.refuses_next.extend(["", "Broker: Not enough in-sync replicas"])
    with sender(gateway) as provider:
        emit(provider, [one.decode() for one in lines])
    expected = imported_ids("teleport", b"\n".join(lines))
    stored = [event["event_id"] for event in gateway.kafka.events]
    assert gateway.kafka.refusals == 1 and len(stored) == 2 * len(expected) - 1
    assert set(stored) == set(expected) and stored[-len(expected) :] == expected
    assert "retrying in" in caplog.text


def test_a_wrong_token_is_in_the_log_of_the_application(
    gateway: ServedGateway, lines: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), sender(gateway, "glt_wrong") as provider:
        emit(provider, [lines[0].decode()])
    assert gateway.kafka.records == []
    assert "401" in caplog.text and "glt_wrong" not in caplog.text


def test_records_that_are_not_understood_do_not_stop_the_others(gateway: ServedGateway, lines: list[bytes]) -> None:
    with sender(gateway) as provider:
        emit(provider, ["started", *(one.decode() for one in lines), {"message": "stopped", "nothing": None, "n": 1.5}])
    expected = imported_ids("teleport", b"\n".join(lines))
    assert [event["event_id"] for event in gateway.kafka.events] == expected
