"""The cases that failed in the field, played through the real codec to the watch: the files say who did what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from grantledger.ledger import batch as batches
from grantledger.ledger.entry import NO_HEADERS, Genesis
from grantledger.processors.access import SECOND
from grantledger.processors.watch.core.commands import COMMANDS
from grantledger.processors.watch.core.judge import Judge
from grantledger.processors.watch_policy import BUILT_IN, AccessLimits, AccessRule, WatchPolicy
from grantledger.producers.adapters import make_adapter
from grantledger.producers.importer import Importer
from grantledger.producers.input_files import InputFile
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import Event, Mapping
from support.cases import Cases
from support.decoded import facts_of
from support.watch_world import SIGNER

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = WatchPolicy(
    default=AccessLimits(grace_seconds=8, approval_wait_seconds=8),
    rule=(AccessRule(tenant="approve1", approvals=1),),
)
"""What the cases need of the policy in their folder."""
CERTAIN = POLICY.model_copy(update={"rule": (*BUILT_IN.rule, *POLICY.rule)})
"""The same with the built-in rules, which a policy file cannot leave out."""


def judge(events: Iterable[Event], policy: WatchPolicy = POLICY, received: datetime | None = None) -> Judge:
    """Return a watch that read the events, appended when they occurred, or at a later time."""
    records = batches.Records()
    for number, event in enumerate(events):
        records.flags.append(1)
        records.offsets.append(number)
        records.append_times.append(int((received or event.occurred_at).timestamp() * 1000))
        records.keys.append(event.key.encode())
        records.values.append(EventEncoder().encode(event))
        records.headers.append(NO_HEADERS)
    head = batches.Head.at_genesis(Genesis("test/access.lifecycle/0/0", bytes(16), 0))
    batch, _ = batches.seal(head, records, len(records.offsets), NOW, SIGNER)
    watch = Judge(policy)
    for fact in facts_of(batch, SchemaCatalog((event_schema(),))):
        watch.add(fact)
    return watch


def imported(cases: Cases, name: str, tool: str, folder: Path) -> list[Event]:
    """Return the events that `grantledger import` sends for a file."""
    file = folder / name
    file.write_text(cases.text(name, NOW))
    events: list[Event] = []
    importer = Importer(make_adapter(tool), events.append)
    with InputFile(str(file)) as records:
        importer.run(records)
    assert importer.report.failed == 0
    return events


def opened(watch: Judge, seconds: float) -> set[tuple[str, str]]:
    """Return rule and access key of the findings that open within seconds, commands left out."""
    until = int((NOW + timedelta(seconds=seconds)).timestamp() * SECOND)
    found = {(one.finding.rule, one.finding.key) for one in watch.judge(until) if one.kind == "opened"}
    return {one for one in found if one[0] not in COMMANDS}


def test_01_a_revocation_in_one_tenant_does_not_touch_the_grant_of_another(cases: Cases) -> None:
    watch = judge(cases.emitted("01", NOW))
    grants = watch.state.grants
    assert {key: one.person for key, one in grants.items()} == {
        "acme/emit/host/g-17": ("alice@example.com",), "globex/emit/host/g-17": ("bob@example.com",),
    }  # fmt: skip
    assert opened(watch, 100) == {("overdue", "acme/emit/host/g-17")}


def test_03_an_approval_in_another_tenant_approves_nothing(cases: Cases) -> None:
    assert opened(judge(cases.emitted("03", NOW)), 100) == {("no_approval", "approve1/emit/host/rg-1")}


def test_04_the_end_of_a_session_on_another_bastion_ends_nothing(cases: Cases) -> None:
    watch = judge(cases.emitted("04", NOW))
    assert opened(watch, 100) == {("session_outlived_grant", "default/bastion/a/s-1")}


def test_05_a_certificate_for_one_session_does_not_shorten_the_grant(cases: Cases, tmp_path: Path) -> None:
    events = imported(cases, "05_", "teleport", tmp_path)
    late = imported(cases, "05b", "teleport", tmp_path)
    late = [replace(one, occurred_at=one.occurred_at + timedelta(seconds=25), event_id="") for one in late]
    assert {one.session_id for one in (*events, *late)} >= {"s-mfa-1", "s-mfa-2"}
    running = [*events, *late]
    assert opened(judge(running, CERTAIN), 8 * 3600) == set()
    outlived = {("session_outlived_grant", f"default/teleport/tp.example.com/s-mfa-{one}") for one in (1, 2)}
    assert opened(judge(running, CERTAIN), 8 * 3600 + 9) == outlived


@pytest.mark.parametrize("policy", [POLICY, CERTAIN], ids=["plain", "built in"])
def test_06_a_consistent_file_of_yesterday_is_no_alarm_at_any_moment(
    cases: Cases, tmp_path: Path, policy: WatchPolicy
) -> None:
    watch = judge(imported(cases, "06_", "teleport", tmp_path), policy, NOW)
    assert len(watch.state.grants) == len(watch.state.sessions) == 1
    found = set().union(*(opened(watch, seconds) for seconds in (1, 10, 59, 70, 3600, 86_400)))
    late = ("late_records", "default/teleport/tp.example.com")  # a policy that believes no deadline has no removal
    assert found == ({late} if policy is POLICY else set())


def test_06b_a_session_read_after_the_end_of_its_grant_began_inside_it(cases: Cases, tmp_path: Path) -> None:
    for policy in (POLICY, CERTAIN):
        watch = judge(imported(cases, "06b", "cloudtrail", tmp_path), policy, NOW)
        assert len(watch.state.sessions) == 1
        assert opened(watch, 600) == set()


def test_22_an_upload_after_a_crash_ends_the_session(cases: Cases, tmp_path: Path) -> None:
    watch = judge(imported(cases, "22", "teleport", tmp_path), CERTAIN)
    assert len(watch.state.sessions) == 1
    assert opened(watch, 3600) == set()


def test_07_temporary_credentials_end_by_themselves(cases: Cases, tmp_path: Path) -> None:
    watch = judge(imported(cases, "07", "cloudtrail", tmp_path), CERTAIN)
    assert watch.state.grants
    until = int((NOW + timedelta(days=1)).timestamp() * SECOND)
    assert watch.judge(until) == [], "no finding, and no command"


def test_11_a_revocation_that_failed_is_no_removal(cases: Cases) -> None:
    assert opened(judge(cases.emitted("11", NOW)), 100) == {("overdue", "default/emit/host/f-1")}


def test_13_the_last_word_of_a_reviewer_counts(cases: Cases) -> None:
    assert opened(judge(cases.emitted("13", NOW)), 100) == {("no_approval", "approve1/emit/host/c02b-g")}


def test_14_a_session_before_the_start_has_no_grant(cases: Cases) -> None:
    assert opened(judge(cases.emitted("14", NOW)), 100) == {("used_without_grant", "default/emit/host/c04-s")}


def test_27_one_person_in_two_unicode_forms_approves_nothing(cases: Cases) -> None:
    found = {rule for rule, _ in opened(judge(cases.emitted("27", NOW)), 100)}
    assert found == {"self_approved", "no_approval"}


def test_10_one_role_assumed_is_one_event_by_file_and_by_bus(cases: Cases) -> None:
    events: list[Event] = []
    for name in ("10_one_assumerole_s3", "10_one_assumerole_eventbridge"):
        importer = Importer(make_adapter("cloudtrail"), events.append)
        with InputFile(str(cases.path(name))) as file:
            importer.run(file)
        assert (importer.report.mapped, importer.report.failed) == (1, 0)
    first, second = events
    assert (first.event_id, first.raw, first.raw_sha256) == (second.event_id, second.raw, second.raw_sha256)
    watch = judge(events)
    assert list(watch.state.grants) == ["default/cloudtrail//ASIAEXAMPLEDUPL0A001"]
    assert not any(rule == "event_conflict" for rule, _ in opened(watch, 9e8))


def test_a_record_that_a_newer_mapping_reads_alike_is_a_remark_and_no_dispute(cases: Cases) -> None:
    events: list[Event] = []
    importer = Importer(make_adapter("cloudtrail"), events.append)
    with InputFile(str(cases.path("10_one_assumerole_s3"))) as file:
        importer.run(file)
    newer = replace(events[0], mapping=Mapping("cloudtrail", "99"))
    watch = judge([*events, newer, newer])
    later = int((events[0].occurred_at + timedelta(hours=2)).timestamp() * SECOND)
    found = [(one.kind, one.finding) for one in watch.judge(later) if one.finding.rule == "event_conflict"]
    assert [(kind, one.severity, one.key) for kind, one in found] == [
        (kind, "info", "default/cloudtrail/111122223333#mapping") for kind in ("opened", "resolved")
    ]
    assert found[0][1].evidence["count"] == 1, "the newest mapping is remembered"
    assert not watch.state.events.conflicts


@pytest.mark.parametrize("name", ["01", "03", "04"])
def test_no_case_is_a_foreign_claim(cases: Cases, name: str) -> None:
    assert "foreign_claim" not in {rule for rule, _ in opened(judge(cases.emitted(name, NOW)), 100)}
