"""Other names of installations: in the policy, in access keys of the watch, and in the enforcers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.base.errors import UsageError
from grantledger.enforcers.command_rules import Circuit, CommandHistory, FinalStatus
from grantledger.enforcers.contract import Key
from grantledger.enforcers.running_grants import GrantEvent, RunningGrants
from grantledger.processors.naming import Installation
from grantledger.processors.watch.findings import config_event, identity_from, scoped_key
from grantledger.processors.watch_policy import WatchPolicy, load_policy
from grantledger.schemas.access_key import access_key
from grantledger.schemas.codec import EventEncoder
from grantledger.schemas.event import EventSource, IssuingSource
from grantledger.schemas.instance_names import NO_NAMES, InstanceNames, names_from, names_in
from support.events import read_datum

from .test_enforce_command_rules import NOON, command
from .test_enforce_running_grants import AFTER, BEFORE, LATER, given, is_same

PROD = Installation(system="bot", instance="prod", other_names=("eu-1", "default"))
POLICY = WatchPolicy(installation=(PROD,))
NAMES = POLICY.names


def test_a_source_is_named_by_the_one_name_of_its_installation() -> None:
    assert NAMES.of(("bot", "eu-1")) == NAMES.of(("bot", "prod")) == ("bot", "prod")
    assert NAMES.of(("vault", "eu-1")) == ("vault", "eu-1") and NAMES.of(("bot", "us-1")) == ("bot", "us-1")
    assert NAMES.of_text("bot/eu-1") == "bot/prod" and NAMES.of_text("bot/us-1") == "bot/us-1"
    assert InstanceNames().of(("bot", "eu-1")) == ("bot", "eu-1")


def test_other_processes_read_the_names_from_the_policy_on_record() -> None:
    datum = read_datum(EventEncoder().encode(config_event("test", POLICY, NOON)))
    assert names_from(datum, "test") == NAMES and names_from(datum, "other") is None
    assert names_from({**datum, "source": {**datum["source"], "system": "evil"}}, "test") is None
    assert names_from({**datum, "event_type": "finding.opened"}, "test") is None
    assert names_in(b"{}") == NO_NAMES
    for wrong in (b"", b"[]", b"\xff", b'{"installation": 1}', b'{"installation": [{"system": "a"}]}', b"[" * 100_000):
        assert names_in(wrong) == NO_NAMES


def test_a_wrong_policy_names_every_problem_at_once(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        '[[installation]]\nsystem = ""\ninstance = "prod"\nother_names = []\n'
        '[[installation]]\nsystem = "vault"\nother_names = ["root"]\ninstances = "x"\n'
    )
    with pytest.raises(UsageError) as caught:
        load_policy(file)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[2].partition(": ")[0] for line in lines] == [
        "installation 1.system", "installation 1.other_names", "installation 2.instance", "installation 2.instances",
    ]  # fmt: skip
    file.write_text(
        '[[installation]]\nsystem = "vault"\ninstance = "prod"\nother_names = ["root", "prod", "dr"]\n'
        '[[installation]]\nsystem = "vault"\ninstance = "dr"\nother_names = ["root"]\n'
        '[[installation]]\nsystem = "bot"\ninstance = "prod"\nother_names = ["root"]\n'
    )
    with pytest.raises(UsageError) as caught:
        load_policy(file)
    for words in (
        "vault/prod is another name of itself",
        "vault/dr has other names, and is one of vault/prod",
        "vault/root is a name of vault/prod and of vault/dr",
    ):
        assert words in str(caught.value)
    file.write_text('[[installation]]\nsystem = "vault"\ninstance = "prod"\nother_names = ["root"]\n')
    assert load_policy(file).names.of(("vault", "root")) == ("vault", "prod")


def test_findings_on_record_under_another_name_are_known() -> None:
    old = access_key("default", ("bot", "eu-1"), "g")
    new = access_key("default", ("bot", "prod"), "g")
    assert identity_from(f'["overdue","{old}",5]', NAMES) == ("overdue", new, 5)
    assert identity_from('["source_silent","bot/eu-1",0]', NAMES) == ("source_silent", "bot/eu-1", 0)
    assert scoped_key(NAMES, "overdue", "g", "default", "bot", "eu-1", "", "", "", "") == new
    assert scoped_key(NAMES, "event_conflict", "bot/eu-1", "acme/eu") == "acme%2Feu/bot/prod"
    assert scoped_key(NAMES, "source_silent", "bot/eu-1", "default") == "bot/prod"


def test_enforcers_take_two_names_for_one_installation() -> None:
    def running(names: InstanceNames, until_source: str) -> bool:
        known = RunningGrants()
        for event, appended in (
            (given("g1", NOON, "grant.activated"), BEFORE),
            (given("g1", LATER, source=EventSource("bot", until_source, "x", "record")), AFTER),
        ):
            datum = names.in_event(read_datum(EventEncoder().encode(event)))
            reported = GrantEvent.of(datum, appended, signed=False)
            assert reported is not None
            known.add(reported, AFTER)
        history = CommandHistory()
        history.rename(names)
        asked = command(grant_source=IssuingSource("bot", "default"))
        asked = replace(asked, key=history.key(asked.key))
        found = known.covering(asked, NOON, AFTER, is_same)
        return found is not None and found.is_grant_of(asked.key)

    assert running(NAMES, "prod")
    assert not running(NO_NAMES, "prod") and not running(NAMES, "us-1")


def test_the_history_of_an_enforcer_follows_new_names() -> None:
    old, new = (Key("g", NOON, "default", ("bot", name)) for name in ("eu-1", "prod"))
    history, circuit = CommandHistory(), Circuit("bot", "eu-1", "db")
    history.add_attempt(circuit, old, 2, NOON)
    history.add_end(old, FinalStatus.confirmed)
    history.open_since[circuit] = NOON
    history.rename(NAMES)
    renamed = Circuit("bot", "prod", "db")
    assert history.attempts == {new: 2} and history.ended == {new: FinalStatus.confirmed}
    assert history.begun == {renamed: [NOON]} and history.open_since == {renamed: NOON}
    assert history.key(old) == new and history.circuit(circuit) == renamed
