"""Access that is not removed, from its deadline to its end: found, paged, taken away, looked for, settled, proved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from grantledger.producers.history import HistoryMark
from grantledger.runtime.children import Child
from grantledger.schemas.event import LIFECYCLE_TOPIC
from support.alerting import webhook_toml
from support.enforcing import Enforcement
from support.on_time import (
    ENFORCER,
    FOUND,
    GRACE,
    POLICY,
    WATCH,
    about,
    activated,
    commands,
    judged_until,
    recorded,
    removal_of,
    send,
    the_only,
    true_lateness,
)
from support.oracle import wait_until_stored
from support.pipeline import Pipeline, samples
from support.postgresql_server import PASSWORD, PostgresqlServer
from support.postgresql_server import running as running_postgresql
from support.receiver import SECRET, Receiver, receiving
from support.shared_broker import RunningBroker
from support.waiting import wait_for

OLD = ("g-gone", "g-there")
ATTEMPTED = ["revoke.attempted", "revoke.attempted"]
ROUTES = """
[targets.files]
plugin = 'exec'
command = {take}
read_back = {look}
timeout_seconds = 300

[targets.broker]
plugin = 'webhook'
url = '{broker}'
secret = {{ env = 'BROKER_SECRET' }}
timeout_seconds = 60

[targets.orders]
plugin = 'postgresql'
conninfo = "{conninfo}"
password = {{ env = 'ORDERS_PASSWORD' }}
strip_domain = 'example.com'
[[targets.orders.actions]]
entitlement = 'readwrite'
roles = ['orders_rw']
nologin = true

[[routes]]
target = 'broker'
sources = ['*']
resource_kind = 'application'
[[routes]]
target = 'orders'
sources = ['*']
resource_kind = 'postgresql'
[[routes]]
target = 'files'
sources = ['*']
"""


@pytest.fixture(scope="module")
def pager() -> Iterator[Receiver]:
    """The receiver of the pages for on-call."""
    with receiving() as started:
        yield started


@pytest.fixture(scope="module")
def access_broker() -> Iterator[Receiver]:
    """A tool that takes access away when it is asked to, and cannot be asked whether it is there."""
    started = Receiver()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A database as the documentation of the enforcer has it: the enforcer is no superuser."""
    with running_postgresql() as started:
        with started.connect() as admin:
            for name in ("alice", "bystander"):
                admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
            admin.execute("CREATE ROLE orders_rw")
            admin.execute(f"CREATE ROLE grantledger_enforcer LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
            admin.execute("GRANT pg_signal_backend, pg_read_all_stats TO grantledger_enforcer")
            admin.execute(
                "GRANT orders_rw, alice TO grantledger_enforcer WITH ADMIN TRUE, INHERIT FALSE, SET FALSE; "
                "SET ROLE grantledger_enforcer; GRANT orders_rw TO alice, bystander; RESET ROLE"
            )
        yield started


@pytest.fixture(scope="module")
def pipeline(
    broker: RunningBroker,
    make_pipeline: Callable[..., Pipeline],
    pager: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
) -> Pipeline:
    folder = tmp_path_factory.mktemp("on-time")
    (folder / "policy.toml").write_text(f"{POLICY}[[rule]]\nresource_kind = 'archive'\nconfirm_wait_seconds = 0.2\n")
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    (folder / "alerts.toml").write_text(webhook_toml("oncall", pager.url, str(folder / "secret")))
    made = make_pipeline(
        broker.bootstrap_servers,
        {
            "GRANTLEDGER_WATCH_POLICY": str(folder / "policy.toml"),
            "GRANTLEDGER_ALERT_CONFIG": str(folder / "alerts.toml"),
        },
    )
    made.start("seal", "store", "anchor", "watch", "alert")
    wait_for(lambda: judged_until(made) > 0, "the watch judges")
    return made


@pytest.fixture(scope="module")
def enforcing(
    pipeline: Pipeline,
    access_broker: Receiver,
    server: PostgresqlServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Enforcement, Child]]:
    """One ``grantledger run enforce --carry-out`` with every target."""
    here = Enforcement(pipeline, pipeline.deployment, tmp_path_factory.mktemp("e") / "here")
    here.environment |= {
        "BROKER_SECRET": SECRET,
        "ORDERS_PASSWORD": PASSWORD,
    }
    here.policy(
        ROUTES.format(
            take=here.program("take"),
            look=here.program("look"),
            broker=access_broker.url,
            conninfo=server.conninfo("grantledger_enforcer"),
        ),
        history_after=3600,
    )
    yield here, here.acting()
    here.stop()


def pages(pager: Receiver, name: str) -> list[str]:
    """Return the types of the messages about a grant. A repeated message counts once, as for any receiver."""
    by_id = {request.headers["webhook-id"]: request.json for request in pager.requests}
    return [one["type"] for one in by_id.values() if one["data"]["key"] == name]


def stored(pipeline: Pipeline, name: str, event_type: str) -> bool:
    """Return whether the store has an event. Far cheaper than a command about grants, so that it can be repeated."""
    sql = f"SELECT 1 FROM entries WHERE grant_id = '{name}' AND event_type = '{event_type}' LIMIT 1"
    return bool(pipeline.query(sql))


def test_from_the_deadline_to_the_proof(
    pipeline: Pipeline, enforcing: tuple[Enforcement, Child], pager: Receiver
) -> None:
    here, _ = enforcing
    here.hold("before")
    (here.folder / "access" / "g-late").touch()
    given = pipeline.run(
        "emit", "grant.activated", "--grant-id", "g-late", "--subject", "alice@example.com",
        "--resource-kind", "host", "--resource", "web-1", "--environment", "production", "--entitlement", "admin",
        "--expires-in", "2s", "--reason", "INC-4711: disk full", "--approved-by", "bob@example.com",
    )  # fmt: skip
    assert given.returncode == 0, given.stderr

    # The enforcer has begun and is blocked: the access exists, on-call is paged, and the finding is visible.
    here.wait_held()
    wait_for(lambda: pages(pager, "g-late") == ["finding.opened"], "on-call is paged")
    assert here.present() == {"g-late"} and about(pipeline, "g-late") == [*FOUND, "revoke.attempted"]

    def listed() -> list[str]:
        answer = pipeline.run("grants", "--state", "overdue", "-o", "json")
        assert answer.returncode == 0, answer.stderr
        return [row["grant_id"] for row in json.loads(answer.stdout)]

    wait_for(lambda: stored(pipeline, "g-late", "finding.opened"), "the finding is stored")
    assert listed() == ["g-late"], "the store shows it as overdue"
    here.release()
    wait_for(lambda: pages(pager, "g-late")[1:] == ["finding.resolved"], "on-call gets the resolution")

    # Everything is in one log, in this order.
    assert about(pipeline, "g-late") == [*FOUND, *ATTEMPTED, "revoke.confirmed", "finding.resolved"]
    assert commands(pipeline) == ["g-late"] and here.requested() == ["g-late"] and here.present() == set()
    opened, resolved = (the_only(pipeline, f"finding.{what}", "g-late") for what in ("opened", "resolved"))
    removal = removal_of(pipeline, "g-late")
    assert (removal.system, removal.datum["removal_evidence"]) == (ENFORCER, "confirmed")
    assert opened.rule == resolved.rule == "overdue" and opened.deadline == resolved.deadline
    assert opened.appended >= opened.deadline + timedelta(seconds=GRACE), "found before the grace period ended"
    assert opened.evidence["removal"] == "not reported"
    # The watch reports the lateness to the microsecond, and it follows from the removal.
    assert resolved.evidence["late_seconds"] == pytest.approx(true_lateness(pipeline, "g-late"), abs=1e-6)
    assert resolved.evidence["late_seconds"] > GRACE and resolved.evidence["removal"] == "confirmed"
    assert about(pipeline, "g-late", ENFORCER)[-1] == "revoke.confirmed"

    # The page names the ledger entry of the finding.
    page = next(request.json["data"] for request in pager.requests if request.json["data"]["key"] == "g-late")
    assert (page["rule"], page["severity"], page["subject"]) == ("overdue", "critical", "alice@example.com")
    assert datetime.fromisoformat(page["deadline"]) == opened.deadline
    wait_until_stored(pipeline)
    origin, _, index = page["entry"].partition("#")
    [entry] = pipeline.query(
        f"SELECT event_type, grant_id, finding_rule FROM entries WHERE origin = '{origin}' AND index = {int(index)}"
    )
    assert entry == {"event_type": "finding.opened", "grant_id": "g-late", "finding_rule": "overdue"}

    assert listed() == []
    whole = pipeline.run("grants", "show", "g-late")
    assert whole.returncode == 0, whole.stderr
    for part in ("INC-4711: disk full", "bob@example.com approved", "evidence: confirmed", "removed ", " late"):
        assert part in whole.stdout, whole.stdout
    for kind in ("grant.activated", "grant.revoked", *about(pipeline, "g-late")):
        assert kind in whole.stdout, whole.stdout
    assert "NO signed checkpoint" not in whole.stdout
    verified = pipeline.run("verify")
    assert verified.returncode == 0 and "SOUND" in verified.stdout, verified.stdout + verified.stderr


def test_without_a_read_back_only_the_tools_own_event_resolves_it(
    pipeline: Pipeline, enforcing: tuple[Enforcement, Child], access_broker: Receiver, pager: Receiver
) -> None:
    assert enforcing[1].alive()
    access_broker.answer(202)
    send(pipeline, activated("g-app", 1.0, kind="application"))
    wait_for(lambda: about(pipeline, "g-app") == [*FOUND, *ATTEMPTED], "the tool has accepted the command")
    taken = [one for one in recorded(pipeline) if one.key == "g-app"][-1]
    assert taken.evidence["final"] and taken.datum["removal_evidence"] == "api_accepted"
    assert access_broker.requests[0].json["data"]["grant_id"] == "g-app"
    # Accepted is not removed: a later judgement does not resolve the finding.
    wait_for(lambda: judged_until(pipeline) > taken.appended.timestamp() + 1.0, "the watch has judged again")
    wait_for(lambda: pages(pager, "g-app"), "on-call is paged")
    assert about(pipeline, "g-app") == [*FOUND, *ATTEMPTED] and pages(pager, "g-app") == ["finding.opened"]

    gone = datetime.now(UTC)
    removed = pipeline.run(
        "emit", "grant.revoked", "--grant-id", "g-app", "--subject", "alice@example.com", "--resource-kind",
        "application", "--resource", "g-app", "--environment", "production", "--entitlement", "readwrite",
        "--removal-evidence", "confirmed", "--occurred-at", gone.isoformat(), "--system", "bot", "--instance", "test",
    )  # fmt: skip
    assert removed.returncode == 0, removed.stderr
    wait_for(lambda: pages(pager, "g-app")[1:] == ["finding.resolved"], "on-call gets the resolution")
    resolved, opened = the_only(pipeline, "finding.resolved", "g-app"), the_only(pipeline, "finding.opened", "g-app")
    # The access ended at the tool's own time, not when its event arrived.
    assert resolved.evidence["late_seconds"] == pytest.approx((gone - opened.deadline).total_seconds(), abs=1e-6)
    assert about(pipeline, "g-app") == [*FOUND, *ATTEMPTED, "finding.resolved"] and len(access_broker.requests) == 1


def test_a_role_in_a_real_database_is_revoked(
    pipeline: Pipeline, enforcing: tuple[Enforcement, Child], server: PostgresqlServer, pager: Receiver
) -> None:
    assert enforcing[1].alive()
    with server.connect("alice") as session, server.connect("bystander") as other, server.connect() as admin:
        # A session keeps the role that it has set, even without the membership.
        session.execute("SET ROLE orders_rw")
        send(pipeline, activated("g-pg", 1.0, kind="postgresql"))
        wait_for(lambda: pages(pager, "g-pg") == ["finding.opened", "finding.resolved"], "it is found and resolved")
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert other.execute("SELECT current_user").fetchone() == ("bystander",)
        members = admin.execute(
            "SELECT member::regrole::text FROM pg_auth_members WHERE roleid = 'orders_rw'::regrole ORDER BY 1"
        ).fetchall()
        assert [name for (name,) in members] == ["bystander", "grantledger_enforcer"]
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        server.connect("alice")
    assert about(pipeline, "g-pg") == [*FOUND, *ATTEMPTED, "revoke.confirmed", "finding.resolved"]
    confirmed = the_only(pipeline, "revoke.confirmed", "g-pg")
    assert confirmed.system == ENFORCER and confirmed.evidence["target"] == "orders"
    assert confirmed.datum["removal_evidence"] == "confirmed"
    assert removal_of(pipeline, "g-pg").datum["subject"]["id"] == "alice@example.com"
    resolved = the_only(pipeline, "finding.resolved", "g-pg")
    assert resolved.evidence["late_seconds"] == pytest.approx(true_lateness(pipeline, "g-pg"), abs=1e-6)
    wait_until_stored(pipeline)
    answer = pipeline.run("grants", "show", "g-pg", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    story = json.loads(answer.stdout)
    assert story["grant"]["state"] == "removed"
    assert {one["event_type"] for one in story["events"]} == {
        "grant.activated", "grant.revoked", *FOUND, *ATTEMPTED, "revoke.confirmed", "finding.resolved",
    }  # fmt: skip


def test_old_access_is_looked_up_and_what_still_exists_is_overdue_at_once(
    pipeline: Pipeline, enforcing: tuple[Enforcement, Child], pager: Receiver
) -> None:
    here, _ = enforcing
    (here.folder / "access" / "g-there").touch()
    begun = datetime.now(UTC) - timedelta(hours=3)
    with pipeline.client(system="bot", instance="test", signer=HistoryMark()) as client:
        for name in ("g-gone", "g-there"):
            client.send(replace(activated(name, -7200, kind="archive"), occurred_at=begun))
    wait_for(lambda: pages(pager, "g-there")[1:] == ["finding.resolved"], "the access that existed is removed")
    looked = ["lookup.requested", "lookup.answered"]
    assert about(pipeline, "g-gone") == looked and pages(pager, "g-gone") == []
    after = [*FOUND, *ATTEMPTED, "revoke.confirmed", "finding.resolved"]
    assert about(pipeline, "g-there") == [*looked, *after]
    told = [one for one in recorded(pipeline, LIFECYCLE_TOPIC) if one.system == ENFORCER and one.key in OLD]
    assert [(one.key, one.event_type, one.datum["removal_evidence"]) for one in told] == [
        ("g-gone", "grant.revoked", "confirmed"), ("g-there", "grant.observed", "none"),
        ("g-there", "grant.revoked", "confirmed"),
    ]  # fmt: skip
    opened, seen = the_only(pipeline, "finding.opened", "g-there"), told[1]
    assert opened.datum["occurred_at"] == seen.appended, "overdue since it was seen, with no grace"
    assert [one for one in commands(pipeline) if one in OLD] == ["g-gone", "g-there", "g-there"]
    assert here.requested()[-1] == "g-there" and "g-gone" not in here.requested() and here.present() == set()


def test_finally_no_finding_is_open_and_the_ledger_is_sound(
    pipeline: Pipeline, enforcing: tuple[Enforcement, Child]
) -> None:
    here, child = enforcing
    ended = {labels: value for (name, labels), value in samples(child).items() if name.endswith("outcomes_total")}
    assert ended == {
        "outcome=accepted,target=broker": 1.0, "outcome=confirmed,target=files": 2.0,
        "outcome=confirmed,target=orders": 1.0,
    }  # fmt: skip
    assert not [
        one.key for one in recorded(pipeline) if one.rule.startswith("enforcer_") or one.event_type == "revoke.failed"
    ]
    published = [(one.event_type, one.rule, one.key) for one in recorded(pipeline) if one.system == WATCH]
    assert len(published) == len(set(published)), "a finding was published twice"
    wait_until_stored(pipeline, shown=True)
    assert pipeline.query("SELECT rule, key FROM findings WHERE open") == []
    for log in (child.log_path.read_text(), *(pipeline.log(name) for name in ("watch", "alert"))):
        assert "Traceback" not in log and PASSWORD not in log
    here.end(child)
    code, report = pipeline.verify("--from", "kafka")
    assert code == 0, report["problems"]
