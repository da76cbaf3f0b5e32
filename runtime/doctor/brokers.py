"""The brokers, and who may write which topic."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from ...base.text import counted
from ...kafka.cluster import Cluster
from ...kafka.errors import answer_of, unavailable
from ...schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, QUERIES_TOPIC
from ...schemas.topics import ANCHORS_TOPIC, COMMANDS_TOPIC, RECEIPTS_TOPIC, SEALED_TOPICS, WATCH_TOPIC
from .diagnosis import Diagnosis, Subject

ABOUT, ACCESS = Subject("brokers"), Subject("access control")
SENDERS = (LIFECYCLE_TOPIC, ACTIVITY_TOPIC)
PIPELINE = (
    FINDINGS_TOPIC, *SEALED_TOPICS, QUERIES_TOPIC, ANCHORS_TOPIC, RECEIPTS_TOPIC, COMMANDS_TOPIC, WATCH_TOPIC,
)  # fmt: skip
EVERYBODY = "User:*"
TABLE = "docs/operations.md#kafka has the table of who may write what"
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Rule:
    """An access control entry that concerns writing. ``name``: of a topic, a prefix, or ``*``."""

    principal: str
    name: str
    is_prefix: bool = False
    denies: bool = False

    def concerns(self, topic: str) -> bool:
        """Whether it is about a topic."""
        return topic.startswith(self.name) if self.is_prefix else self.name in ("*", topic)


@dataclass(frozen=True, slots=True)
class Brokers:
    """What the brokers say of themselves.

    Attributes:
        servers: the setting.
        nodes: the addresses of the brokers.
        config: of one of them; empty if it may not be read.
        rules: about writing topics; None if they may not be read.
        hidden: why rules or configuration may not be read.
    """

    servers: str
    nodes: Collection[str]
    config: Mapping[str, str | None] = field(default_factory=dict)
    rules: Collection[Rule] | None = None
    hidden: str = ""


def check_brokers(found: Brokers, *, local: bool) -> list[Diagnosis]:
    """Return what is to be said about the brokers."""
    nodes = ", ".join(sorted(found.nodes))
    if len(found.nodes) >= 3 or local:
        return [ABOUT.ok(f"{counted(len(found.nodes), 'brokers')}: {nodes}")]
    return [
        ABOUT.warning(
            f"{counted(len(found.nodes), 'brokers')} only: {nodes}",
            "a ledger needs three, so that one may fail: add brokers",
        )
    ]


def writers(rules: Iterable[Rule], topic: str) -> set[str]:
    """Return who may write a topic by the rules. A denial wins."""
    about = [rule for rule in rules if rule.concerns(topic)]
    denied = {rule.principal for rule in about if rule.denies}
    return set() if EVERYBODY in denied else {rule.principal for rule in about if not rule.denies} - denied


def check_access(found: Brokers, prefix: str, *, local: bool) -> list[Diagnosis]:
    """Return who may write the topics of the pipeline, and who must not.

    Args:
        prefix: the ``topic_prefix``.
        local: it is the local stack, which only listens on loopback.
    """
    authorizer = found.config.get("authorizer.class.name")
    if found.config and not authorizer:
        if local:
            return [ACCESS.ok("no authorizer, as on a local stack: everybody on this machine may write every topic")]
        return [
            ACCESS.warning(
                "the cluster has no authorizer: whoever reaches a broker may write every topic",
                f"configure authorizer.class.name on the brokers; {TABLE}. What the log key did not sign is found all "
                "the same (docs/trust.md)",
            )
        ]
    if found.rules is None:
        return [ACCESS.unchecked(f"who may write the topics: {found.hidden}", "run it as a user who may Describe them")]
    lines = []
    if found.config.get("allow.everyone.if.no.acl.found") == "true":
        rest = [name for name in PIPELINE if not any(rule.concerns(prefix + name) for rule in found.rules)]
        if rest:
            lines.append(
                ACCESS.problem(
                    f"everybody may write {', '.join(prefix + name for name in rest)}: they have no rule, and "
                    "allow.everyone.if.no.acl.found is true",
                    f"allow the pipeline's users only; {TABLE}",
                )
            )
    senders = {who for name in SENDERS for who in writers(found.rules, prefix + name)}
    for name in PIPELINE:
        allowed = writers(found.rules, prefix + name)
        if EVERYBODY in allowed:
            lines.append(ACCESS.problem(f"everybody may write {prefix}{name}", f"remove the rule; {TABLE}"))
        elif both := allowed & senders - {EVERYBODY}:
            lines.append(
                ACCESS.warning(
                    f"{', '.join(sorted(both))} may write {prefix}{name}, and events of senders, too",
                    f"give senders and the pipeline users of their own; {TABLE}",
                )
            )
    if not lines:
        may = {name: ", ".join(sorted(writers(found.rules, prefix + name))) or "nobody" for name in PIPELINE}
        sealers = ", ".join(sorted({may[name] for name in SEALED_TOPICS}))
        findings = may[FINDINGS_TOPIC]
        lines.append(ACCESS.ok(f"besides super users, {findings} may write {prefix}{FINDINGS_TOPIC}, and {sealers} "
                               "the sealed topics"))  # fmt: skip
    return lines


def read_brokers(cluster: Cluster) -> Brokers:
    """Ask the brokers. Raises KafkaUnavailableError."""
    servers, admin = str(cluster.options.get("bootstrap.servers")), cluster.admin
    try:
        nodes = answer_of(admin.describe_cluster(request_timeout=_SECONDS)).nodes
    except KafkaException as error:
        raise unavailable("the brokers cannot be listed", error) from error
    addresses = [f"{node.host}:{node.port}" for node in nodes]
    config: dict[str, str | None] = {}
    rules: list[Rule] | None = None
    hidden = ""
    try:
        resource = ConfigResource(ResourceType.BROKER, str(nodes[0].id))
        asked = answer_of(admin.describe_configs([resource], request_timeout=_SECONDS)[resource])
        config = {name: entry.value for name, entry in asked.items()}
    except KafkaException as error:
        hidden = error.args[0].str()
    try:
        rules = _rules(cluster)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.SECURITY_DISABLED:
            config = {"authorizer.class.name": "", **config}
        hidden = error.args[0].str()
    return Brokers(servers, addresses, config, rules, hidden)


def _rules(cluster: Cluster) -> list[Rule]:
    everything: Any = None  # which its types do not know
    wanted = AclBindingFilter(
        ResourceType.TOPIC, everything, ResourcePatternType.ANY, everything, everything,
        AclOperation.ANY, AclPermissionType.ANY,
    )  # fmt: skip
    return [
        Rule(
            one.principal,
            one.name,
            one.resource_pattern_type is ResourcePatternType.PREFIXED,
            one.permission_type is AclPermissionType.DENY,
        )
        for one in answer_of(cluster.admin.describe_acls(wanted, request_timeout=_SECONDS))
        if one.operation in (AclOperation.WRITE, AclOperation.ALL)
    ]
