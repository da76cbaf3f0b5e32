"""The one table of finding rules, for every process: severity, summary, what resolves it, and what an operator does.

``python -m grantledger.schemas.finding_rules > docs/findings.md`` writes the runbook page from it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From least to most urgent."""
RUNBOOK = "docs/findings.md"
"""The page that has one section per rule, as a path in the repository."""


@dataclass(frozen=True, slots=True)
class FindingRule:
    """One rule.

    Attributes:
        name: as in ``finding.rule``.
        process: the process that opens the finding.
        severity: the default; the watch policy may set another.
        summary: one line for the engineer who is paged.
        meaning: when exactly the finding opens, and what resolves it.
        action: what the operator does.
        persists: nothing resolves the finding automatically; a person closes it.
    """

    name: str
    process: str
    severity: Severity
    summary: str
    meaning: str
    action: str
    persists: bool = False

    @property
    def runbook(self) -> str:
        """Address of the rule's section in the runbook."""
        return f"{RUNBOOK}#{self.name}"


_WATCH = (
    FindingRule(
        "overdue", "watch", "critical",
        "Access is past its deadline and no removal is on record",
        "The deadline and the grace period have passed, and no removal that the policy accepts was appended in time. "
        "A removal or a new end resolves it; `late_seconds` in the evidence then states the delay.",
        "Run `grantledger grants show GRANT`. If the access still exists, remove it in the tool now. If it is gone, "
        "find out why the tool did not report the removal.",
    ),
    FindingRule(
        "session_outlived_grant", "watch", "critical",
        "A session continues after its grant ended",
        "A session is still open after its grant ended. The end of the session resolves it.",
        "Terminate the session in the tool, then check what was done in it after the grant ended.",
    ),
    FindingRule(
        "used_without_grant", "watch", "critical",
        "A session is not covered by a grant",
        "A session names a grant that was not active when the session began, or names none although the policy "
        "requires one. The end of the session resolves it; for a session that has already ended, it resolves at once.",
        "Find out who opened the session and by which path. Close the session, and close the path if it bypasses "
        "approval.",
    ),
    FindingRule(
        "no_deadline", "watch", "warning",
        "Access was granted without a deadline",
        "A grant is active, has no end, and the policy sets none. An end or a removal resolves it.",
        "Give the grant an end in the tool, or set `max_seconds` in the watch policy for such grants.",
    ),
    FindingRule(
        "no_approval", "watch", "critical",
        "Access was granted without the approvals that the policy requires",
        "A grant is active and too few people other than the holder approved it within `approval_wait_seconds`. The "
        "missing approvals or a removal resolve it.",
        "Ask the holder and the approvers. Remove the access unless somebody entitled to approve it does so now.",
    ),
    FindingRule(
        "self_approved", "watch", "critical",
        "The holder approved their own access",
        "The person who holds or requested the access approved it.",
        "Have someone else review the access, fix the approval rule in the tool, and close the finding.",
        persists=True,
    ),
    FindingRule(
        "extended_beyond_policy", "watch", "warning",
        "Access was extended beyond the longest time that the policy allows",
        "The end of the access lies more than `max_seconds` after its beginning, extensions included. An earlier end "
        "or a removal resolves it.",
        "Shorten the access in the tool, or have the exception approved and adjust the policy.",
    ),
    FindingRule(
        "removal_unconfirmed", "watch", "warning",
        "A removal was requested and is not confirmed",
        "A removal was reported without confirmation, and none followed within `confirm_wait_seconds`. A confirmation "
        "resolves it.",
        "Check in the target system whether the access is gone. If the tool never confirms removals, list the evidence "
        "that you accept in `removal` of the watch policy.",
    ),
    FindingRule(
        "clock_skew", "watch", "warning",
        "A clock is ahead by more than the policy allows",
        "A source stamped an event later than the broker received it, by more than `clock_skew_seconds`. There is one "
        "finding per source and day; it resolves when the day ends. A key that begins with `grantledger-watch/` means "
        "the clock of the watch's own machine.",
        "Fix time synchronization on the machine that the key names.",
    ),
    FindingRule(
        "source_silent", "watch", "warning",
        "A source that used to report is silent",
        "Nothing arrived from a source for longer than `silent_after_seconds`. The next event resolves it.",
        "Check that the tool, its exporter and the network between it and Kafka work. Until then its removals are not "
        "recorded either.",
    ),
    FindingRule(
        "sequence_gap", "watch", "critical",
        "Events of a source are missing",
        "A number in the source's own sequence did not arrive within `gap_wait_seconds`. Its arrival resolves it.",
        "Find the missing events at the source and send them again. If they are lost, find out why.",
    ),
    FindingRule(
        "event_conflict", "watch", "critical",
        "One event id stands for two different events",
        "Two events have the same source and event id but different content.",
        "Compare both entries with the tool's own record. Find out which one is false and who sent it, then close the "
        "finding.",
        persists=True,
    ),
    FindingRule(
        "watch_fault", "watch", "critical",
        "The watch could not process a record",
        "A sealed record or an event could not be judged, or entries are missing in the sealed topic. All other "
        "events are judged as usual.",
        "Read the evidence and the log of the watch. Check the grants of the entry that it names by hand, then close "
        "the finding.",
        persists=True,
    ),
)  # fmt: skip

_SWEEP = (
    FindingRule(
        "sweep_difference", "sweep", "critical",
        "The watch and the store disagree about which access is overdue",
        "Two sweeps in a row found a grant that the store shows as overdue and the watch does not, or the reverse. It "
        "resolves when both agree.",
        "Treat the grant as overdue until you have checked it. Then compare `grantledger grants show GRANT` with the "
        "tool, and check the logs of the watch and the store.",
    ),
)  # fmt: skip

_SEAL = (
    FindingRule(
        "sender_timed", "seal", "warning",
        "Records carry timestamps that their senders set",
        "The input topic accepted timestamps from senders. The records are sealed, but no deadline uses "
        "their times.",
        "Set `message.timestamp.type=LogAppendTime` on the topic (`grantledger topics check` shows it), then close "
        "the finding.",
        persists=True,
    ),
    FindingRule(
        "sealed_topic_lost", "seal", "critical",
        "Sealing stopped: the sealed partition is empty, although it contained batches before",
        "Committed offsets, the store or an anchor show that this log was sealed before, but its sealed partition is "
        "empty.",
        "Restore the sealed topic from a copy. Never delete the committed offsets to get past this check.",
        persists=True,
    ),
    FindingRule(
        "head_mismatch", "seal", "critical",
        "Sealing stopped: the end of the sealed partition does not verify",
        "No record of the sealed partition verifies with this key as a batch of this deployment, or the last valid "
        "batch contradicts an anchor.",
        "Check `key_file`, `deployment`, `topic_prefix` and `kafka_bootstrap_servers`. If they are right, the sealed "
        "topic was changed: preserve it as evidence, run `grantledger verify`, and restore the topic from a copy.",
        persists=True,
    ),
    FindingRule(
        "topic_replaced", "seal", "critical",
        "Sealing stopped: the input topic was deleted and created again",
        "The input topic has another Kafka topic id than the one that the log is bound to.",
        "Find out who deleted the topic. The partition stays stopped until the original topic is back.",
        persists=True,
    ),
    FindingRule(
        "offset_mismatch", "seal", "critical",
        "Sealing stopped: the committed offset is not where the sealed log ends",
        "Committed offsets and sealed batches are written in one transaction, so one of them was changed from outside.",
        "Find out who reset the group's offsets or wrote to the sealed topic. If it was the offsets, set them to the "
        "tail's next offset, which the message names.",
        persists=True,
    ),
    FindingRule(
        "input_expired", "seal", "critical",
        "Sealing stopped: Kafka deleted records before they were sealed",
        "The input partition begins after the offset where sealing must continue: retention deleted unsealed records.",
        "Recover the records from the sources if you can. The partition stays stopped until the topic has them again.",
        persists=True,
    ),
    FindingRule(
        "input_truncated", "seal", "critical",
        "Sealing stopped: the input topic lost records that were already sealed",
        "The input partition ends before the offset up to which it was sealed.",
        "Check the brokers for an unclean leader election or a restored backup. The partition stays stopped until the "
        "original topic is back.",
        persists=True,
    ),
    FindingRule(
        "partition_count", "seal", "critical",
        "Sealing stopped: an input topic and its sealed topic have different partition counts",
        "Partition i is sealed into partition i, so both topics need the same number of partitions.",
        "Add the missing partitions with `grantledger topics create`, and find out who changed the count.",
        persists=True,
    ),
    FindingRule(
        "anchor_mismatch", "seal", "critical",
        "Sealing stopped: the last anchor cannot be read",
        "The last record of `access.anchors` is not an anchor, so the sealed logs cannot be compared with it.",
        "Find out who wrote to `access.anchors`. Preserve the record as evidence and restore the topic from a copy.",
        persists=True,
    ),
)  # fmt: skip

_READERS = (
    FindingRule(
        "sealed_record_invalid", "any reader", "critical",
        "A sealed topic contains a record that the log key did not sign",
        "A reader found a record without a valid signed note in a sealed topic, and skipped it.",
        "Find out who can write to the sealed topic and revoke that right. Run `grantledger verify`, then close the "
        "finding.",
        persists=True,
    ),
    FindingRule(
        "sealed_log_discontinuous", "any reader", "critical",
        "Reading stopped: a signed batch does not continue the log",
        "A batch with a valid note does not continue the last verified head. Readers stop at this partition; the "
        "others continue.",
        "Batches were lost, or the log key signed two histories. Preserve the topic, run `grantledger verify`, and "
        "restore the topic from a copy. If you find two histories, treat the key as stolen.",
        persists=True,
    ),
)  # fmt: skip

_ENFORCE = (
    FindingRule(
        "enforcer_breaker", "enforce", "critical",
        "The enforcer's breaker is open: no access is being revoked",
        "More revocations were due within the window than `max_per_window` allows. Closing the breaker resolves "
        "the finding.",
        "Check whether the commands are justified: a wrong policy or clock makes many at once. Then close the breaker, "
        "and the enforcer continues.",
    ),
    FindingRule(
        "enforcer_command_invalid", "enforce", "critical",
        "The enforcer rejected an invalid command",
        "A record in `access.commands` is not a valid command. It was skipped.",
        "Find out who wrote it: only the watch may write to this topic. Then close the finding.",
        persists=True,
    ),
    FindingRule(
        "enforcer_commands_lost", "enforce", "critical",
        "Revoke commands expired before the enforcer read them",
        "Retention deleted records from `access.commands` while the enforcer was not running.",
        "Go through the open `overdue` findings and remove the access by hand. Then close the finding.",
        persists=True,
    ),
)  # fmt: skip

FINDING_RULES: Mapping[str, FindingRule] = MappingProxyType(
    {rule.name: rule for rule in (*_WATCH, *_SWEEP, *_SEAL, *_READERS, *_ENFORCE)}
)
"""All rules by name."""

_HEAD = """\
# Findings: what they mean and what to do

<!-- Generated: python -m grantledger.schemas.finding_rules > docs/findings.md -->

One section per rule. `grantledger findings list` and the view [`findings`](queries.md) show which are open. A finding
that does not resolve automatically stays open until a person closes it: `grantledger findings close --reason …`.

| rule | severity | opened by | summary |
|---|---|---|---|
"""


def page() -> str:
    """Return the runbook as Markdown."""
    rules = FINDING_RULES.values()
    rows = [f"| [`{one.name}`](#{one.name}) | {one.severity} | {one.process} | {one.summary} |\n" for one in rules]
    return _HEAD + "".join(rows) + "".join(map(_section, rules))


def _section(rule: FindingRule) -> str:
    closing = "It stays open until a person closes it." if rule.persists else "The event named below resolves it."
    return (
        f"\n## {rule.name}\n\n{rule.summary}.\n\nSeverity: {rule.severity}. {closing}\n\n"
        f"**Meaning.** {rule.meaning}\n\n**What to do.** {rule.action}\n"
    )


if __name__ == "__main__":
    sys.stdout.write(page())
