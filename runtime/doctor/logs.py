"""The sealed logs and their anchors: what is stopped, and which targets have the last anchor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ...base.text import counted
from ...kafka.anchor_log import last_anchor
from ...kafka.records import last_record
from ...kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ...ledger.anchor import Anchor, AnchorError, AnchorTargetError, decode_receipt
from ...processors.partition_state import anchored_heads, identify
from ...processors.resume import SealingStoppedError
from ...schemas.topics import RECEIPTS_TOPIC
from ...sinks.file_target import FileTarget
from ..epochs.partitions import find_stops
from ..settings import Settings
from .diagnosis import Diagnosis, Subject

ABOUT, ANCHORS = Subject("logs"), Subject("anchors")
LATE_ANCHORS = 3
"""Intervals after which an anchor is missing."""
ANCHOR_SECONDS = 60.0
"""In addition: an anchor process may restart."""


def check_stops(stops: Mapping[str, tuple[str, str]], count: int) -> list[Diagnosis]:
    """Return which logs are stopped.

    Args:
        stops: rule and reason, by the name of the log.
        count: the number of all logs.
    """
    lines = [
        ABOUT.problem(
            f"sealing of {name} is stopped: {rule}: {reason}",
            f"see docs/runbooks/{rule}.md and `grantledger epoch show`",
        )
        for name, (rule, reason) in stops.items()
    ]
    return lines or [ABOUT.ok(f"none of the {counted(count, 'logs')} is stopped")]


@dataclass(frozen=True, slots=True)
class AnchorState:
    """The anchors.

    Attributes:
        last: index and time of the last anchor in Kafka; None if there is none.
        file: index of the last anchor in the file target; None if the file is not on this machine, or is empty.
        file_name: its name; empty if it is no target.
        file_problem: why the file cannot be read.
        refused: the answers of targets that did not take the last anchor, by their names.
    """

    last: tuple[int, datetime] | None
    file: int | None = None
    file_name: str = ""
    file_problem: str = ""
    refused: Mapping[str, str] | None = None


def check_anchors(found: AnchorState, now: datetime, interval: float) -> list[Diagnosis]:
    """Return what is to be said about the anchors. ``interval``: seconds between two of them."""
    if found.last is None:
        return [
            ANCHORS.warning(
                "there is no anchor yet", "start `grantledger run anchor`, which needs a sealed batch first"
            )
        ]
    index, at = found.last
    age = (now - at).total_seconds()
    lines = []
    if age > LATE_ANCHORS * interval + ANCHOR_SECONDS:
        lines.append(
            ANCHORS.problem(
                f"the last anchor is {age / 60:,.0f} minutes old: what is cut off a log since then leaves no trace",
                "start `grantledger run anchor`, or see its /readyz",
            )
        )
    lines += [
        ANCHORS.problem(f"the target {name} did not take anchor {index}: {why}",
                        "see docs/runbooks/anchor_target_stopped.md")
        for name, why in (found.refused or {}).items()
    ]  # fmt: skip
    if found.file_problem:
        lines.append(ANCHORS.problem(found.file_problem, "restore the file from a copy, or correct anchor_file"))
    elif found.file is not None and found.file < index - 1:
        lines.append(
            ANCHORS.problem(
                f"{found.file_name} ends at anchor {found.file}, and Kafka has {index}",
                "see the log of `run anchor`: can it write the file?",
            )
        )
    elif found.file_name and found.file is None:
        lines.append(
            ANCHORS.unchecked(
                f"{found.file_name} has no anchor on this machine", "run it where the file is, or name it (anchor_file)"
            )
        )
    if lines:
        return lines
    place = f"; {found.file_name} has it, too" if found.file is not None else ""
    return [ANCHORS.ok(f"the last anchor, {index}, is {max(0.0, age):.0f} s old{place}")]


def examine(logs: SealedLogs, settings: Settings) -> list[Diagnosis]:
    """Read the logs' ends and the anchors from Kafka. Raises KafkaUnavailableError."""
    identities = identify(logs.cluster)
    count = sum(one.partitions for name, one in identities.items() if not name.endswith(".sealed"))
    stops: dict[str, tuple[str, str]] = {}
    lines: list[Diagnosis] = []
    try:
        stops = {
            f"{one.state.topic}/{one.state.partition}": (one.stop.rule, str(one.stop))
            for one in find_stops(logs, identities, anchored_heads(logs))
        }
        last = last_anchor(logs)
    except SealingStoppedError as error:
        stops, last = {"every log": (error.rule, str(error))}, None
    except SealedLogStoppedError as error:
        lines.append(ANCHORS.problem(str(error), "see docs/runbooks/anchors_lost.md"))
        last = None
    lines = [*check_stops(stops, count), *lines]
    if stops and last is None:
        return lines
    return [*lines, *check_anchors(_anchors(logs, settings, last), datetime.now(UTC), settings.anchor_interval_seconds)]


def _anchors(logs: SealedLogs, settings: Settings, last: Anchor | None) -> AnchorState:
    name, file, problem = "", None, ""
    if "file" in settings.anchor_targets:
        name = str(settings.anchor_path)
        try:
            found = FileTarget(settings.anchor_path).last()
            file = found.index if found is not None else None
        except (AnchorError, AnchorTargetError) as error:
            problem = str(error)
    at = (last.index, datetime.fromtimestamp(last.time_ms / 1000, UTC)) if last is not None else None
    return AnchorState(at, file, name, problem, _refused(logs, last))


def _refused(logs: SealedLogs, last: Anchor | None) -> dict[str, str]:
    record = last_record(logs.cluster, RECEIPTS_TOPIC, 0)
    try:
        receipt = decode_receipt(record.value() or b"") if record is not None else None
    except AnchorError:
        return {}
    is_last = receipt is not None and last is not None and receipt.index == last.index
    return {receipt.target: receipt.error} if receipt is not None and is_last and receipt.error else {}
