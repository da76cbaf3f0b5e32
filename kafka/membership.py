"""Partitions that a consumer group has forgotten, and how a member makes the group assign them.

The leader of a group assigns the partitions that it sees at that moment. Partitions that were added later, or that it
did not see after a broker restart, belong to no member until the group rebalances. A static member that restarts within
its session does not cause a rebalance: the group returns its old assignment (Kafka's issue 13435).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition

from ..base.health import HEALTH
from .cluster import Cluster
from .errors import REQUEST_TIMEOUT, answer_of
from .offsets import Partition

log = structlog.get_logger("grantledger.kafka")

GROUP_SECONDS = 4.0
"""Limit of a request for the state of a group. Signals are delivered after it."""
_HEAD, _LENGTH, _COUNT = struct.Struct(">hi"), struct.Struct(">h"), struct.Struct(">i")
CHECK_SECONDS = 10.0
"""Seconds between two checks for forgotten partitions."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """The members of a consumer group.

    Attributes:
        stable: every member has received its assignment. Otherwise the group is empty or rebalances.
        assigned: the partitions of each member, by member id.
    """

    stable: bool
    assigned: Mapping[str, frozenset[Partition]]

    def forgotten(self, partitions: Collection[Partition]) -> frozenset[Partition]:
        """Return the partitions that belong to no member; none while the group rebalances."""
        return frozenset(partitions).difference(*self.assigned.values()) if self.stable else frozenset()

    def is_first(self, member_id: str) -> bool:
        """Whether a member comes first in an order that all members agree on."""
        return member_id == min(self.assigned, default=None)


def group_state(cluster: Cluster, group: str) -> GroupState:
    """Return the state of a consumer group. Raises KafkaException.

    By the older request of librdkafka: if the group's coordinator goes away meanwhile, the newer one
    (``describe_consumer_groups``) of librdkafka 2.16.0 ends the whole process by a failed assertion, or never answers.
    """
    listed: list[Any] = cluster.admin.list_groups(group, timeout=GROUP_SECONDS)
    found = next((one for one in listed if one.id == group), None)
    if found is None:
        return GroupState(stable=False, assigned={})
    if found.error is not None:
        raise KafkaException(found.error)
    assigned = {}
    for member in found.members:
        partitions = assigned_partitions(member.assignment)
        assigned[member.id] = frozenset((cluster.logical(topic), number) for topic, number in partitions)
    return GroupState(found.state == "Stable", assigned)


def assigned_partitions(assignment: bytes) -> list[Partition]:
    """Return the partitions in the assignment of a member, as Kafka's consumers encode it.

    The format is ConsumerProtocolAssignment in Kafka's message definitions: i16 version, an array of topics with their
    names and partitions, user data.
    """
    found: list[Partition] = []
    if len(assignment) < _HEAD.size:
        return found
    _, topics = _HEAD.unpack_from(assignment)
    at = _HEAD.size
    for _ in range(topics):
        (length,) = _LENGTH.unpack_from(assignment, at)
        at += _LENGTH.size
        name = assignment[at : at + length].decode()
        (count,) = _COUNT.unpack_from(assignment, at := at + length)
        at += _COUNT.size
        found += [(name, number) for number in struct.unpack_from(f">{count}i", assignment, at)]
        at += 4 * count
    return found


def partitions_of(cluster: Cluster, topics: Collection[str]) -> list[Partition]:
    """Return the partitions that topics have now. Raises KafkaException."""
    names = TopicCollection([cluster.physical(topic) for topic in topics])
    futures = cluster.admin.describe_topics(names, request_timeout=REQUEST_TIMEOUT)
    return [(cluster.logical(name), one.id) for name, found in futures.items() for one in answer_of(found).partitions]


class GroupMember:
    """A consumer that subscribes to topics, and joins its group again if the group has forgotten partitions of them.

    Of several members only one does so. Two rebalances follow, in which all members lose their partitions for a moment.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        consumer: Consumer,
        topics: Collection[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._group, self._consumer, self._topics, self._clock = cluster, group, consumer, topics, clock
        self._check_at = clock() + CHECK_SECONDS
        self._callbacks: tuple[Callable[..., Any], Callable[..., Any]]

    def subscribe(self, on_assign: Callable[..., Any], on_revoke: Callable[..., Any]) -> None:
        """Join the group.

        Args:
            on_assign, on_revoke: as in ``Consumer.subscribe``; lost partitions are revoked.
        """
        self._callbacks = on_assign, on_revoke
        names = [self._cluster.physical(topic) for topic in self._topics]
        HEALTH.settle("start")
        HEALTH.waits("assignment", "waits for the first assignment of partitions")
        self._consumer.subscribe(names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._callbacks[0](consumer, partitions)
        if partitions:
            HEALTH.settle("assignment")
        else:
            HEALTH.notes("assignment", f"stands by: others of the group {self._group} have all partitions")

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        HEALTH.waits("assignment", "waits for an assignment of partitions: the members of the group change")
        self._callbacks[1](consumer, partitions)

    def rejoin_if_forgotten(self) -> None:
        """If a check is due and the group has forgotten partitions, leave it and join again."""
        if self._clock() < self._check_at:
            return
        try:
            state = group_state(self._cluster, self._group)
            forgotten = state.forgotten(partitions_of(self._cluster, self._topics))
        except KafkaException as error:
            log.warning("group_unknown", group=self._group, reason=error.args[0].str())
            forgotten = frozenset()
        self._check_at = self._clock() + CHECK_SECONDS
        if forgotten and state.is_first(self._consumer.memberid()):
            log.warning("group_joined_again", group=self._group, forgotten=[f"{topic}/{n}" for topic, n in forgotten])
            self._consumer.unsubscribe()  # a static member leaves its group in no other way: closing is not enough
            self.subscribe(*self._callbacks)
