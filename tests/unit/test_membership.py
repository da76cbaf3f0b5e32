"""Partitions that a consumer group has forgotten: one member joins the group again."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from grantledger.base.health import Health
from grantledger.kafka import errors, membership
from grantledger.kafka.cluster import Cluster
from grantledger.kafka.membership import CHECK_SECONDS, GroupMember, GroupState

TOPIC = "access.activity"
ALL = [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2)]
COMPLETE = GroupState(True, {"a": frozenset(ALL[:2]), "b": frozenset(ALL[2:])})
FORGOTTEN = GroupState(True, {"a": frozenset(ALL[:1]), "b": frozenset(ALL[1:2])})


def test_a_partition_without_a_member_is_forgotten_once_the_group_is_stable() -> None:
    assert COMPLETE.forgotten(ALL) == frozenset()
    assert FORGOTTEN.forgotten(ALL) == {(TOPIC, 2)}
    assert GroupState(False, FORGOTTEN.assigned).forgotten(ALL) == frozenset()
    assert GroupState(True, {"a": frozenset()}).forgotten(ALL) == set(ALL)


def test_one_member_is_the_first() -> None:
    assert [FORGOTTEN.is_first(name) for name in ("", "a", "b")] == [False, True, False]
    assert not GroupState(True, {}).is_first("a")


class FakeConsumer:
    """Records what its owner calls."""

    def __init__(self, member_id: str) -> None:
        self.member_id, self.calls = member_id, []

    def memberid(self) -> str:
        return self.member_id

    def subscribe(self, names: list[str], **callbacks: Any) -> None:
        self.calls.append(("subscribe", names, callbacks))

    def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")


@pytest.mark.parametrize(
    ("member_id", "state", "rejoins"),
    [("a", FORGOTTEN, True), ("b", FORGOTTEN, False), ("a", COMPLETE, False), ("a", None, False)],
)
def test_the_first_member_joins_again_with_the_same_callbacks(
    monkeypatch: pytest.MonkeyPatch, member_id: str, state: GroupState | None, rejoins: bool
) -> None:
    now, asked, consumer = [100.0], [], FakeConsumer(member_id)

    def found(cluster: Cluster, group: str) -> GroupState:
        asked.append(group)
        if state is None:
            raise KafkaException(KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE))
        return state

    monkeypatch.setattr(membership, "group_state", found)
    monkeypatch.setattr(membership, "partitions_of", lambda cluster, topics: ALL)
    member = GroupMember(Cluster({}, "p-"), "group", consumer, [TOPIC], clock=lambda: now[0])  # type: ignore[arg-type]
    called: list[str] = []
    member.subscribe(lambda *_: called.append("assigned"), lambda *_: called.append("revoked"))
    joined = consumer.calls[0]
    assert joined[:2] == ("subscribe", ["p-access.activity"])
    member.rejoin_if_forgotten()
    assert (asked, consumer.calls) == ([], [joined])  # not due yet
    now[0] += CHECK_SECONDS
    member.rejoin_if_forgotten()
    member.rejoin_if_forgotten()
    assert asked == ["group"]
    assert consumer.calls == [joined, *(["unsubscribe", joined] if rejoins else [])]
    for name in ("on_assign", "on_revoke", "on_lost"):
        joined[2][name](consumer, [])
    assert called == ["assigned", "revoked", "revoked"]


def test_the_assignment_of_a_member_is_read() -> None:
    """The bytes that a broker sent for a member with three partitions of one topic."""
    sent = bytes.fromhex("0000 00000001 0001 74 00000003 00000000 00000001 00000002 00000000")
    assert membership.assigned_partitions(sent) == [("t", 0), ("t", 1), ("t", 2)]
    two = bytes.fromhex("0001 00000002 0001 61 00000001 00000005 0002 6262 00000000 ffffffff")
    assert membership.assigned_partitions(two) == [("a", 5)]
    assert membership.assigned_partitions(b"") == [], "a member that has none yet"


def test_a_request_that_librdkafka_loses_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store once waited for one until somebody ended it: the coordinator of its group had restarted."""
    monkeypatch.setattr(errors, "REQUEST_TIMEOUT", -errors._LATE_SECONDS)
    with pytest.raises(KafkaException) as raised:
        errors.answer_of(Future[None]())
    assert errors.is_transient(raised.value)


def test_a_member_says_whether_it_has_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    monkeypatch.setattr(membership, "HEALTH", health)
    consumer = FakeConsumer("a")
    member = GroupMember(Cluster({}), "group", consumer, [TOPIC])  # type: ignore[arg-type]
    member.subscribe(lambda *_: None, lambda *_: None)
    callbacks, told = consumer.calls[0][2], []
    for name, partitions in (("on_assign", []), ("on_revoke", []), ("on_assign", [1]), ("on_lost", [1])):
        callbacks[name](consumer, partitions)
        told.append([(one.text.partition(":")[0], one.waits) for one in health.conditions()])
    waits = [("waits for an assignment of partitions", True)]
    assert told == [[("stands by", False)], waits, [], waits]
