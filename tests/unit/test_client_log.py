"""The log lines of Kafka clients: through our log, in its form, and not again and again."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
from confluent_kafka import Consumer, Producer

from grantledger.kafka.client_log import CLIENT_LOG, REPEAT_SECONDS, OncePerMinute
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.options import reader_options, transactional_options
from grantledger.runtime.loopback_ports import HOST, free_port
from grantledger.runtime.process import configure_logs
from grantledger.runtime.settings import Settings
from support.waiting import wait_for


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.parametrize("kind", ["consumer", "producer"])
def test_no_client_writes_to_standard_error_itself(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    cluster, kept = Cluster({"bootstrap.servers": f"{HOST}:{free_port()}"}), Kept()
    CLIENT_LOG.addHandler(kept)
    try:
        if kind == "consumer":
            consumer = Consumer(reader_options(cluster, "g"))
            consumer.subscribe(["t"])
            wait_for(lambda: (consumer.poll(0.05) and None) or kept.lines, "the client logs its failure", pause=0)
            consumer.close()
        else:
            producer = Producer(transactional_options(cluster, "t"))
            wait_for(lambda: (producer.poll(0.05) and None) or kept.lines, "the client logs its failure", pause=0)
    finally:
        CLIENT_LOG.removeHandler(kept)
    assert any("Connection refused" in line for line in kept.lines)
    assert all(not line.startswith("%") and "rdkafka#" not in line for line in kept.lines)
    assert capfd.readouterr().err == ""


def record(text: str, client: str = "rdkafka#producer-1") -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, "", 0, "%s [%s] %s", ("FAIL", client, text), None)


def test_a_line_is_repeated_once_per_minute() -> None:
    now = [0.0]
    once = OncePerMinute(lambda: now[0])
    text = (
        "[thrd:b:1/bootstrap]: b:1/bootstrap: refused (after {}ms in state CONNECT, {} identical error(s) suppressed)"
    )
    first = record(text.format(0, 1))
    assert once.filter(first) and first.getMessage() == "FAIL: b:1/bootstrap: refused"
    assert not once.filter(record(text.format(3, 30), "rdkafka#consumer-2"))
    assert once.filter(record("[thrd:main]: another"))
    now[0] = REPEAT_SECONDS
    again = record(text.format(1, 2))
    assert once.filter(again) and again.getMessage() == "FAIL: b:1/bootstrap: refused (1 repeats left out)"


def test_a_process_writes_them_like_its_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        configure_logs(Settings(log_format="json"))
        CLIENT_LOG.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "[thrd:x]: a line of this test")
        line = json.loads(capsys.readouterr().err)
    finally:
        root.handlers = handlers
        structlog.reset_defaults()
    assert (line["event"], line["level"], line["text"]) == ("kafka_client", "error", "FAIL: a line of this test")
