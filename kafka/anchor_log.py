"""The anchor log in Kafka: its last valid anchor, and the anchors from an index on."""

from __future__ import annotations

from confluent_kafka import Message

from ..ledger.anchor import Anchor, AnchorError, anchor_log, check_anchor, decode_anchor
from ..ledger.entry import split_origin
from ..schemas.topics import ANCHORS_TOPIC
from .records import read_backward
from .sealed_log import SealedLogProblem, SealedLogs, SealedLogStoppedError


def last_anchor(logs: SealedLogs) -> Anchor | None:
    """Return the last anchor that the log key signed, or None if the topic has no record. Other records are reported.

    Raises:
        SealedLogStoppedError: the topic has records, and none of them is an anchor of this deployment.
    """
    problems: list[SealedLogProblem] = []
    for message in read_backward(logs.cluster, ANCHORS_TOPIC, 0):
        try:
            found = open_anchor(logs, message)
        except AnchorError as error:
            problems.append(anchor_problem(message, error))
            continue
        for problem in problems:
            logs.on_problem(problem)
        return found
    if problems:
        raise SealedLogStoppedError(
            f"no record of {logs.cluster.physical(ANCHORS_TOPIC)} verifies. The last one: {problems[0].reason}. Check "
            "key_file, deployment, topic_prefix and kafka_bootstrap_servers"
        )
    return None


def anchors_from(logs: SealedLogs, origin: str, index: int) -> list[Anchor]:
    """Return the valid anchors of an epoch from an index on, in order."""
    found: dict[int, Anchor] = {}
    for message in read_backward(logs.cluster, ANCHORS_TOPIC, 0):
        try:
            anchor = open_anchor(logs, message)
        except AnchorError:
            continue
        if (anchor.origin == origin and anchor.index < index) or anchor.origin != origin:
            break
        found[anchor.index] = anchor
    return [found[number] for number in sorted(found)]


def open_anchor(logs: SealedLogs, message: Message) -> Anchor:
    """Decode and verify the anchor in a record of the anchors topic.

    Raises:
        AnchorError: it is not an anchor of this deployment, or the log key did not sign it.
    """
    anchor = decode_anchor(message.value() or b"")
    try:
        log = split_origin(anchor.origin)[0]
    except ValueError as error:
        raise AnchorError(str(error)) from error
    if log != anchor_log(logs.deployment):
        raise AnchorError(f"it belongs to {anchor.origin}")
    check_anchor(anchor, logs.keys.at(anchor.origin, anchor.index + 1))
    return anchor


def anchor_problem(message: Message, error: AnchorError) -> SealedLogProblem:
    """Return the problem with a record that is not a valid anchor."""
    offset, appended = message.offset() or 0, message.timestamp()[1]
    return SealedLogProblem("sealed_record_invalid", ANCHORS_TOPIC, 0, offset, appended, str(error))
