"""The outbox: in any order and with crashes at any point, each finding is delivered under one id."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grantledger.sinks.alerts.channel import Envelope, Exchange, NamedChannel
from grantledger.sinks.alerts.config import AlertConfig
from grantledger.sinks.alerts.database import OutboxError, connect_outbox, lock_outbox, prepare
from grantledger.sinks.alerts.delivery import Deliveries
from grantledger.sinks.alerts.finding import FindingEvent
from grantledger.sinks.alerts.outbox import Outbox, OutboxPosition
from grantledger.sinks.alerts.status import outbox_status
from grantledger.webhooks.answer import Answer, SendResult
from support.alerting import finding

HOUR = 3600.0
START = 1_700_000_000.0
TOPIC = "ab" * 16


def scoped(one: FindingEvent, **scope: str) -> FindingEvent:
    """Return a finding's event with another tenant or grant source."""
    return replace(one, facts=one.facts | scope)


class Texts:
    """Formats messages and sends nothing."""

    def message(self, finding: FindingEvent, opened: str) -> str:
        return json.dumps([finding.change, finding.key, *([json.loads(opened)] if opened else [])])

    def send(self, envelopes: Sequence[Envelope]) -> list[Exchange]:
        raise AssertionError("nothing is sent here")


def channels(**more: object) -> list[NamedChannel]:
    config = AlertConfig.model_validate(
        {
            "channels": {
                "hook": {"kind": "webhook", "url": "https://hook.example/", "secret": {"env": "X"}, **more},
                "oncall": {"kind": "alertmanager", "url": "http://am.example:9093", "ending_posts": 2, **more},
            }
        }
    )
    return [NamedChannel(name, channel, Texts()) for name, channel in config.channels.items()]


class Process:
    """The alerting process without Kafka and HTTP, over a folder; ``crash`` leaves only what is on disk."""

    def __init__(self, path: Path, channels: list[NamedChannel]) -> None:
        self.path, self.channels, self.now = path, channels, START
        self.offset = 0
        prepare(path)
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.path, self.channels)
        self.outbox.configure(self.now)
        self.out = {
            named.name: Deliveries(self.path, named.name, named.config.delivery(), lambda: 0.5)
            for named in self.channels
        }

    def close(self) -> None:
        self.outbox.close()
        for one in self.out.values():
            one.close()

    def take(self, *findings: FindingEvent, live: bool = True, policy: bytes | None = None) -> int:
        self.offset += 1
        return self.outbox.take(
            OutboxPosition(TOPIC, self.offset), findings, [], live=live, now=self.now, policy=policy
        )

    def release(self, hours: float = 168.0) -> dict[str, int]:
        return self.outbox.release(OutboxPosition(TOPIC, self.offset), self.now, hours)

    def send(self, channel: str, result: SendResult = SendResult.delivered, *, record: bool = True) -> list[Envelope]:
        """Deliver the messages that are due, and return them."""
        out = self.out[channel]
        envelopes = out.envelopes(out.plan(self.now).send)
        if envelopes and record:
            out.record(Exchange(tuple(one.number for one in envelopes), Answer(result, 200, "said so")), self.now)
        return envelopes

    def texts(self, channel: str, result: SendResult = SendResult.delivered) -> list[str]:
        return [" ".join(json.loads(one.text)[:2]) for one in self.send(channel, result)]

    def drain(self, channel: str) -> list[str]:
        """Deliver until nothing is left to leave now."""
        told: list[str] = []
        while texts := self.texts(channel):
            told += texts
        return told


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with closing(Process(tmp_path / "alerts" / "outbox.sqlite3", channels())) as running:
        yield running


def test_the_file_is_ours_alone(process: Process) -> None:
    process.take(finding("opened"))
    assert stat.S_IMODE(process.path.parent.stat().st_mode) == 0o700
    for path in process.path.parent.glob("outbox.sqlite3*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with closing(connect_outbox(process.path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert database.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_two_processes_do_not_share_an_outbox(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    with lock_outbox(path), pytest.raises(OutboxError, match="in use"):
        lock_outbox(path)
    lock_outbox(path).close()


def test_another_versions_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    prepare(path)
    with closing(connect_outbox(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="version 99"):
        prepare(path)
    path.write_bytes(b"this is no database, and much longer than a header of one would be" * 20)
    with pytest.raises(OutboxError, match="cannot be used"):
        prepare(path)


def test_a_replay_enqueues_nothing(process: Process) -> None:
    said = [finding("opened"), finding("resolved")]
    assert process.take(*said) == 2
    first = process.drain("hook")
    assert first == ["opened g-1", "resolved g-1"]
    assert process.take(*said) == 0
    assert process.take(said[0]) == 0
    assert process.drain("hook") == []


def test_position_and_findings_move_together(process: Process) -> None:
    process.take(finding("opened"))
    with pytest.raises(AttributeError):  # in the midst: the second finding is none
        process.outbox.take(OutboxPosition(TOPIC, 9), [finding("opened", "g-2"), None], [], live=True, now=START)  # type: ignore[list-item]
    known = process.outbox.position()
    assert known is not None and known.next_offset == 1
    assert process.drain("hook") == ["opened g-1"]
    assert process.take(finding("opened", "g-2")) == 1


def test_findings_that_ended_within_the_backlog_are_not_sent(process: Process) -> None:
    process.take(finding("opened", "g-1", at=START), finding("opened", "g-2", at=START), live=False)
    assert process.send("hook") == [] and process.send("oncall") == []
    process.take(finding("resolved", "g-1", at=START), live=False)
    skipped = process.release()
    assert sum(skipped.values()) == 4  # opening and end, on both channels
    assert process.drain("hook") == ["opened g-2"]
    assert process.texts("oncall") == ["opened g-2"]


def test_old_open_findings_are_not_sent_on_the_first_start_only(process: Process) -> None:
    process.take(finding("opened", "old", at=START - 3 * HOUR), finding("opened", "new", at=START), live=False)
    process.release(hours=2.0)
    assert process.drain("hook") == ["opened new"]
    assert {one["key"] for one in outbox_status(process.path, START)["open"]} == {"old", "new"}
    process.take(finding("resolved", "old"))
    assert process.drain("hook") == [], "whoever was not told of the opening is not told of the end"
    channel = {one["name"]: one for one in outbox_status(process.path, START)["channels"]}["hook"]
    assert channel["pending"] == 0
    process.take(finding("opened", "away", at=START - 3 * HOUR), live=False)  # after a long time away
    process.release(hours=2.0)
    assert process.drain("hook") == ["opened away"]


def test_an_end_in_the_backlog_is_sent_where_the_opening_was(process: Process) -> None:
    process.take(finding("opened"))
    assert process.drain("hook") == ["opened g-1"]
    process.take(finding("resolved"), live=False)
    assert process.drain("hook") == ["resolved g-1"]


def test_the_end_waits_for_the_opening(process: Process) -> None:
    process.take(finding("opened"), finding("resolved"))
    assert process.texts("hook", SendResult.retry) == ["opened g-1"]
    assert process.texts("hook") == []
    process.now += 10
    assert process.drain("hook") == ["opened g-1", "resolved g-1"]


def test_an_open_finding_is_posted_again_and_its_end_a_few_times(process: Process) -> None:
    process.take(finding("opened"))
    posts = []
    for _ in range(3):
        posts += process.texts("oncall")
        assert process.texts("oncall") == []
        process.now += 60
    process.take(finding("resolved"))
    for _ in range(5):
        posts += process.texts("oncall")
        process.now += 60
    assert posts == ["opened g-1"] * 3 + ["resolved g-1"] * 2


def test_an_end_that_comes_while_a_post_is_on_its_way_is_sent(process: Process) -> None:
    process.take(finding("opened"))
    out = process.out["oncall"]
    leaving = out.plan(process.now).send
    process.take(finding("resolved"))
    out.record(Exchange((leaving[0].number,), Answer(SendResult.delivered, 200, "")), process.now)
    assert process.drain("oncall") == ["resolved g-1"]
    process.now += 60
    assert process.drain("oncall") == ["resolved g-1"]
    process.now += 600
    assert process.drain("oncall") == []


def test_a_finding_that_opens_again_is_not_ended_by_the_posts_of_its_first_end(process: Process) -> None:
    process.take(finding("opened"), finding("resolved"))
    assert process.drain("oncall") == ["opened g-1", "resolved g-1"]
    process.take(finding("opened", telling=1))
    process.now += 60
    assert process.drain("oncall") == ["opened g-1"]
    process.now += 60
    assert process.drain("oncall") == ["opened g-1"]


def test_a_reopened_finding_is_a_new_message_for_webhooks_and_one_state_elsewhere(process: Process) -> None:
    process.take(finding("opened"), finding("opened", telling=1))
    assert process.drain("hook") == ["opened g-1"] * 2
    assert process.texts("oncall") == ["opened g-1"]
    assert len(outbox_status(process.path, START)["open"]) == 1


def test_a_new_channel_gets_the_open_findings(process: Process) -> None:
    process.release()
    process.take(finding("opened", "g-1"), finding("opened", "g-2"), finding("resolved", "g-1"))
    process.drain("hook")
    process.close()
    more = AlertConfig.model_validate(
        {"channels": {"second": {"kind": "webhook", "url": "https://x.example/", "secret": {"env": "X"}}}}
    )
    process.channels = [*process.channels, NamedChannel("second", more.channels["second"], Texts())]
    process.start()
    assert process.drain("second") == ["opened g-2"]
    assert process.drain("hook") == []


@pytest.mark.parametrize(
    ("filter_", "told"),
    [({"rules": ["over*"]}, ["opened a"]), ({"min_severity": "critical"}, ["opened a", "opened b"])],
)
def test_a_channel_gets_the_findings_of_its_routes(tmp_path: Path, filter_: dict[str, object], told: list[str]) -> None:
    with closing(Process(tmp_path / "outbox.sqlite3", channels(**filter_))) as process:
        mild = finding("opened", "c", rule="clock_skew")
        object.__setattr__(mild, "severity", "warning")
        process.take(finding("opened", "a"), finding("opened", "b", rule="self_approved"), mild)
        assert process.drain("hook") == told
        process.take(finding("resolved", "c", rule="clock_skew"))
        assert process.drain("hook") == []


def test_410_disables_a_channel_until_it_is_enabled(process: Process) -> None:
    process.take(finding("opened", "g-1"), finding("opened", "g-2"))
    assert process.texts("hook", SendResult.gone) == ["opened g-1"]
    process.now += HOUR
    assert process.texts("hook") == []
    process.take(finding("opened", "g-3"), finding("resolved", "g-2"), finding("opened", "g-4"))
    channel = {one["name"]: one for one in outbox_status(process.path, process.now)["channels"]}["hook"]
    assert channel["state"] == "disabled" and channel["pending"] == 5
    assert process.texts("oncall") != [], "the other channel goes on"
    assert process.outbox.enable("hook", process.now)
    assert not process.outbox.enable("hook", process.now)
    assert process.drain("hook") == ["opened g-1", "opened g-3", "opened g-4"]


def test_a_person_closes_a_finding(process: Process) -> None:
    process.take(finding("opened", rule="head_mismatch"))
    assert process.drain("hook") == ["opened g-1"]
    process.take(finding("closed", rule="head_mismatch"))
    assert process.take(finding("closed", rule="head_mismatch")) == 0
    assert process.drain("hook") == ["closed g-1"]
    assert outbox_status(process.path, START)["open"] == []
    with closing(connect_outbox(process.path, read_only=True)) as database:
        assert [row[0] for row in database.execute("SELECT ending FROM findings")] == ["closed"]
    process.take(finding("opened", rule="head_mismatch", telling=1))
    assert process.drain("hook") == ["opened g-1"], "a new finding is sent again"


def test_an_acknowledged_finding_stays_open_and_each_channel_gets_one_message(process: Process) -> None:
    acknowledged = finding("acknowledged", at=START)
    acknowledged.facts["actor"] = "carol"
    process.take(finding("opened"), acknowledged)
    assert process.texts("oncall") == ["opened g-1"]
    assert process.texts("oncall") == ["acknowledged g-1"]
    assert process.drain("hook") == ["opened g-1", "acknowledged g-1"]
    (shown,) = outbox_status(process.path, START)["open"]
    assert (shown["acknowledged_by"], shown["acknowledged_at"].timestamp()) == ("carol", START)
    posts = []
    for _ in range(3):
        process.now += 60
        posts += process.drain("oncall")
    assert posts == ["opened g-1"] * 3, "the state is repeated, the acknowledgement is not"
    process.take(finding("resolved"))
    assert process.drain("hook") == ["resolved g-1"]
    assert process.drain("oncall") == ["resolved g-1"]


def test_an_acknowledgement_in_the_backlog_follows_its_opening(process: Process) -> None:
    process.take(finding("opened", at=START), finding("acknowledged", at=START), live=False)
    assert process.drain("hook") == []
    process.release()
    assert process.drain("hook") == ["opened g-1", "acknowledged g-1"]


def test_every_exchange_is_on_record(process: Process) -> None:
    process.take(finding("opened"))
    (sent,) = process.send("hook", SendResult.retry)
    process.now += 10
    process.send("hook")
    with closing(connect_outbox(process.path, read_only=True)) as database:
        rows = [tuple(row) for row in database.execute("SELECT channel, result, messages FROM deliveries")]
    assert rows == [
        ("hook", "retry", json.dumps([sent.message_id])),
        ("hook", "delivered", json.dumps([sent.message_id])),
    ]
    (failure,) = outbox_status(process.path, process.now)["failures"]
    assert (failure["channel"], failure["detail"], failure["messages"]) == ("hook", "said so", [sent.message_id])


def test_settled_findings_are_pruned_and_a_replay_does_not_send_them(process: Process) -> None:
    process.take(finding("opened", "g-1"), finding("resolved", "g-1"), finding("opened", "g-2"))
    process.drain("hook")
    process.drain("oncall")
    process.now += 60
    process.drain("oncall")
    for out in process.out.values():
        out.prune(process.now + 1)
    with closing(connect_outbox(process.path, read_only=True)) as database:
        left = [row[0] for row in database.execute("SELECT identity FROM findings")]
        assert database.execute("SELECT count(*) FROM deliveries").fetchone()[0] == 0
    assert [json.loads(one)[1] for one in left] == ["g-2"]
    assert process.take(finding("opened", "g-1"), finding("resolved", "g-1")) == 0
    assert process.drain("hook") == []


EVENTS = [finding(what, key) for key in ("a", "b", "c") for what in ("opened", "resolved")]  # type: ignore[arg-type]
_step = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("send"), st.sampled_from(["hook", "oncall"]), st.sampled_from(list(SendResult))),
    st.tuples(st.just("lost"), st.sampled_from(["hook", "oncall"]), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 2), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 4000), st.none()),
)


@given(steps=st.lists(_step, max_size=40))
def test_whatever_happens_each_finding_goes_out_and_under_one_id(steps: list[tuple[str, object, object]]) -> None:
    """``lost``: delivered, and killed before that was on record. ``crash``: killed, and a few events come again."""
    with TemporaryDirectory(dir=os.environ.get("XDG_RUNTIME_DIR")) as folder:
        process = Process(Path(folder) / "outbox.sqlite3", channels())
        process.release()
        try:
            told: list[tuple[str, str, str]] = []  # channel, id, text
            done = 0

            def deliver(channel: str, result: SendResult, record: bool) -> None:
                for one in process.send(channel, result, record=record):
                    told.append((channel, one.message_id, one.text))

            for kind, first, second in steps:
                if kind == "take":
                    process.take(*EVENTS[done : done + int(str(first))], live=True)
                    done = min(len(EVENTS), done + int(str(first)))
                elif kind == "send":
                    deliver(str(first), SendResult(str(second)), True)
                elif kind == "lost":
                    deliver(str(first), SendResult.delivered, False)
                    process.close()
                    process.start()
                elif kind == "crash":
                    process.close()
                    process.start()
                    done = max(0, done - int(str(first)))  # told again from an earlier place
                else:
                    process.now += int(str(first))
            process.take(*EVENTS[done:])
            for channel in process.out:
                process.outbox.enable(channel, process.now)
            for _ in range(20):
                process.now += 400
                for channel in process.out:
                    deliver(channel, SendResult.delivered, True)
            skipped = {
                (row["channel"], row["id"])
                for row in process.outbox._database.execute(
                    "SELECT channel, id FROM messages WHERE state IN ('skipped', 'given_up')"
                )
            }
            every = {
                (row["channel"], row["id"]): row["text"]
                for row in process.outbox._database.execute("SELECT channel, id, text FROM messages")
            }
            assert len(every) == 2 * len(EVENTS), "each finding is in the outbox once, however often it was read"
            assert {(channel, id_) for channel, id_, _ in told} | skipped == set(every)
            assert all(every[channel, id_] == text for channel, id_, text in told), "the same words at every try"
            gone = [step for step in steps if step[0] == "send" and step[2] is SendResult.gone]
            refused = [step for step in steps if step[0] == "send" and step[2] is SendResult.rejected]
            assert not skipped or gone or refused
            for channel in process.out:
                assert process.drain(channel) == [], "what has ended is at rest"
                firsts = list(dict.fromkeys(text for name, _, text in told if name == channel))
                for key in "abc":
                    mine = [json.loads(text)[0] for text in firsts if json.loads(text)[1] == key]
                    assert mine in (["opened", "resolved"], []), (channel, key, mine)
        finally:
            process.close()


def test_equal_keys_of_two_tenants_and_two_sources_are_separate_alerts(process: Process) -> None:
    process.release()
    scopes = [
        {"tenant": "a"},
        {"tenant": "b"},
        {"tenant": "b", "grant_source_system": "vault", "grant_source_instance": "root"},
        {"tenant": "b", "grant_source_system": "vault", "grant_source_instance": "lab"},
    ]
    # Even their event ids are equal: an event is identified by tenant and id.
    opened = [scoped(finding("opened", telling=max(0, number - 1)), **one) for number, one in enumerate(scopes)]
    assert process.take(*opened) == 4
    assert len(process.send("oncall")) == 4
    process.take(scoped(finding("resolved"), **scopes[2]))
    open_now = outbox_status(process.path, process.now)["open"]
    assert [one["tenant"] for one in open_now] == ["a", "b", "b"]
    process.take(scoped(finding("resolved", telling=1), **(scopes[3] | {"grant_source_instance": "new"})))
    assert len(outbox_status(process.path, process.now)["open"]) == 3, "the grant of a third source"


@pytest.mark.parametrize("known_at", ["opened", "resolved"])
def test_an_end_is_matched_although_only_one_of_the_events_names_the_grant_source(
    process: Process, known_at: str
) -> None:
    process.release()
    vault = {"grant_source_system": "vault", "grant_source_instance": "root"}
    for change in ("opened", "resolved"):
        one = finding(change)  # type: ignore[arg-type]
        process.take(scoped(one, **vault) if change == known_at else one)
    assert outbox_status(process.path, process.now)["open"] == []
    assert process.drain("hook") == ["opened g-1", "resolved g-1"]


def test_an_end_under_another_name_of_the_installation_ends_the_finding(process: Process) -> None:
    named = json.dumps({"installation": [{"system": "vault", "instance": "prod", "other_names": ["root"]}]}).encode()
    old, new, other = (
        {"grant_source_system": "vault", "grant_source_instance": name} for name in ("root", "prod", "dr")
    )
    process.take(scoped(finding("opened"), **old))
    assert process.drain("hook") == ["opened g-1"]
    process.take(scoped(finding("opened", telling=1), **new), scoped(finding("resolved"), **new))
    assert process.drain("hook") == ["opened g-1", "resolved g-1"], "without a policy they are two"
    process.take(policy=named)
    process.outbox.close()
    process.start()  # it is remembered
    process.take(scoped(finding("opened", telling=2), **new))
    assert process.drain("hook") == ["opened g-1"], "once more, because it is said again: of the same finding"
    process.take(scoped(finding("resolved", telling=1), **other))
    assert process.drain("hook") == []
    process.take(scoped(finding("resolved", telling=2), **new))
    assert process.drain("hook") == ["resolved g-1"]
    process.take(policy=b"{}")
    process.take(scoped(finding("opened", telling=3), **old), scoped(finding("resolved", telling=3), **new))
    assert process.drain("hook") == ["opened g-1"]
