"""The sink against a ClickHouse over HTTP, as a user who has the role of the writer and no other right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from grantledger.sinks.server_roles import Role
from support.clickhouse_users import ROLES, configuration
from support.command import run_command
from support.faulty_proxy import FaultyProxy
from support.oracle import wait_until_stored
from support.pipeline import Pipeline
from support.shared_broker import RunningBroker
from support.waiting import wait_for

SERVER = Path(__file__).parents[1] / "support" / "clickhouse_server.py"


@contextmanager
def running(folder: Path, role: Role | None) -> Iterator[str]:
    """Run the server with the rights of a role, or of the administrator, and give its address."""
    config = configuration(folder, role)
    command = [sys.executable, str(SERVER), str(folder / "data"), "0", "ledger", "right", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    folder = tmp_path_factory.mktemp("server")
    with running(folder, None) as address:
        given = {
            **os.environ, "GRANTLEDGER_CLICKHOUSE_URL": address, "GRANTLEDGER_CLICKHOUSE_USER": "ledger",
            "GRANTLEDGER_CLICKHOUSE_PASSWORD": "right", "GRANTLEDGER_DATA_DIR": str(folder),
        }  # fmt: skip
        for tenants in ((), ("--tenant", "acme")):  # it can be repeated
            made = run_command("init", "--clickhouse-roles", *tenants, "-q", environment=given)
            assert made.returncode == 0, made.stderr
        names = made.stdout.split()
    assert names == [f"grantledger_audit_{kind}" for kind in ("writer", "analyst", "auditor", "tenant_acme")]
    with running(folder, ROLES.writer) as address, FaultyProxy(address, seed=1, lose=0.0) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def pipeline(broker: RunningBroker, make_pipeline: Callable[..., Pipeline], server: FaultyProxy) -> Pipeline:
    return make_pipeline(
        broker.bootstrap_servers,
        {
            "GRANTLEDGER_CLICKHOUSE_URL": server.url,
            "GRANTLEDGER_CLICKHOUSE_USER": "ledger",
            "GRANTLEDGER_CLICKHOUSE_PASSWORD": "right",
        },
    )


def test_server_mode_stores_queries_and_verifies(pipeline: Pipeline) -> None:
    pipeline.start()
    sent = pipeline.run("demo", "--traffic-only", "--lives", "40", "--seed", "1")
    assert sent.returncode == 0, sent.stderr
    events = int(sent.stdout.split(" events")[0].rsplit(" ", 1)[-1])
    pipeline.wait_stored(events)
    rows = pipeline.query("SELECT count() AS c FROM events WHERE origin NOT LIKE '%/access.findings/%'")
    assert int(rows[0]["c"]) == events
    wait_until_stored(pipeline, shown=True)
    _, report = pipeline.verify("--states")
    assert report["sound"], report["problems"] or report["unchecked"]
    assert report["states"] > 0 and not report["unchecked_states"]
    assert report["entries"] == int(pipeline.query("SELECT count() AS c FROM entries")[0]["c"]) > events
    # The role has the right to drop partitions of states, and `query` does not; it has no right to drop a table.
    for statement, reason in (
        ("ALTER TABLE stored_grants DROP PARTITION 9", "readonly"),
        ("DROP TABLE entries", "497"),
    ):
        refused = pipeline.run("query", statement)
        assert refused.returncode == 1 and reason in refused.stderr


def test_after_an_outage_of_the_server_the_states_are_refreshed_again(pipeline: Pipeline, server: FaultyProxy) -> None:
    """The outage is long enough that the store also fails to connect again."""
    server.broken = True
    wait_for(lambda: pipeline.log("store").count('"states_not_refreshed"') >= 3, "refreshes fail")
    waits = pipeline.health("store").waits
    assert any("does not refresh the states of grants" in one for one in waits), waits
    server.broken = False
    back = time.time()
    refreshed = "grantledger_states_refreshed_timestamp_seconds"
    wait_for(lambda: pipeline.metric("store", refreshed) > back, "they are refreshed")
    pipeline.wait_ready("store")


def test_wrong_password_names_the_setting(pipeline: Pipeline) -> None:
    pipeline.environment["GRANTLEDGER_CLICKHOUSE_PASSWORD"] = "wrong"
    try:
        answer = pipeline.run("query", "SELECT 1")
    finally:
        pipeline.environment["GRANTLEDGER_CLICKHOUSE_PASSWORD"] = "right"
    assert answer.returncode == 2
    assert "clickhouse_password" in answer.stderr and "Traceback" not in answer.stderr
