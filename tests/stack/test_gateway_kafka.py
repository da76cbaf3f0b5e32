"""The gateway as a process, over a real broker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from grantledger.kafka.records import read_whole, signed_record
from grantledger.ledger.keys import LocalSigner
from grantledger.ledger.source_signature import is_signed_by, signature_in, signed_bytes
from grantledger.producers.gateway.credentials import token_digest
from grantledger.schemas.event import LIFECYCLE_TOPIC
from support.gateway import TOKENS, GatewayProcess
from support.pipeline import WITHOUT_STATES, Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

GRANT = {
    "event_type": "grant.activated", "subject": {"id": "alice"}, "grant_id": "g1", "entitlement": "rw",
    "resource": {"kind": "database", "id": "orders"}, "expiry_source": "unknown", "source": {"native_id": "n1"},
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline]) -> Pipeline:
    running = make_pipeline(broker.bootstrap_servers, WITHOUT_STATES)
    running.start("seal", "store")
    return running


@pytest.fixture(scope="module")
def signer() -> LocalSigner:
    return LocalSigner.generate()


@pytest.fixture(scope="module")
def gateway(
    pipeline: Pipeline, signer: LocalSigner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    key = folder / "bot.pem"
    key.write_bytes(signer.to_pem(None))
    key.chmod(0o600)
    process = GatewayProcess(pipeline, folder, bot=key)
    process.start()
    wait_for(lambda: "Kafka answers" in process.client.get("/readyz").text, "Kafka answers")
    yield process
    process.child.stop()


def test_an_event_is_signed_sealed_and_stored(pipeline: Pipeline, gateway: GatewayProcess, signer: LocalSigner) -> None:
    answer = gateway.post("/v1/events", GRANT)
    assert answer.status_code == 200, answer.text
    [event_id] = answer.json()["event_ids"]
    assert answer.json()["stored"] == "kafka"
    [message] = read_whole(pipeline.cluster, LIFECYCLE_TOPIC, 0)
    record = signed_record(LIFECYCLE_TOPIC, message)
    message_bytes = signed_bytes(pipeline.deployment, LIFECYCLE_TOPIC, record.key, record.value)
    assert is_signed_by(signer.public_key, signature_in(record.headers) or b"", message_bytes)
    pipeline.wait_stored(1)
    [row] = pipeline.query(
        f"SELECT tenant, source_system, source_instance, received_at FROM entries WHERE event_id = '{event_id}'"
    )
    assert (row["tenant"], row["source_system"], row["source_instance"]) == ("payments", "deploy-bot", "eu-1")
    assert row["received_at"] is not None


def test_a_new_token_is_valid_after_sighup_and_a_deleted_one_is_not(
    pipeline: Pipeline, gateway: GatewayProcess
) -> None:
    environment = {**pipeline.environment, "GRANTLEDGER_GATEWAY_CONFIG": str(gateway.config)}
    token = pipeline.run("gateway", "token", "vault", environment=environment).stdout.strip()
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace(token_digest(TOKENS["vault"]), "0" * 64))
    assert gateway.post("/ingest/vault", b"", source="vault").status_code == 200
    os.kill(gateway.child.pid or 0, signal.SIGHUP)
    wait_for(lambda: gateway.post("/ingest/vault", b"", source="vault").status_code == 401, "the old token is unknown")
    answer = gateway.client.post("/ingest/vault", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert gateway.post("/ingest/teleport", b"", source="teleport").status_code == 200


def test_a_stop_reports_what_was_taken(pipeline: Pipeline, gateway: GatewayProcess) -> None:
    gateway.child.stop()
    reports = (
        "SELECT tenant, source_instance, report_result, toUInt64(report_records) AS records FROM entries "
        "WHERE event_type = 'source.report' AND source_system = 'deploy-bot'"
    )
    [row] = wait_for(lambda: pipeline.query(reports), "the report is stored")
    expected = {"tenant": "payments", "source_instance": "eu-1", "report_result": "mapped", "records": 1}
    assert row | {"records": int(row["records"])} == expected
