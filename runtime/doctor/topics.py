"""The topics: each demand of the design, and what it means if it is not met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...base.text import counted
from ...kafka.cluster import Cluster
from ...kafka.topics import TopicState, read_topics, topic_differences
from ...schemas.event import FINDINGS_TOPIC
from ...schemas.topics import SEALED_SUFFIX, TopicSpec, sealed
from .diagnosis import Diagnosis, Subject

ABOUT = Subject("topics")
REPLICAS, IN_SYNC = 3, 2
_RETENTION = "retention.ms"
_FIXED = {
    "partitions": "the number cannot be changed for an existing ledger: docs/runbooks/partition_count.md",
    "message.timestamp.type": "otherwise a sender sets the time of its records, and deadlines do not use them",
    "cleanup.policy": "otherwise the broker deletes records that are not sealed, or keeps old snapshots",
    "compression.type": "otherwise a record may be too large to be sealed",
    "max.message.bytes": "otherwise a batch is refused that the pipeline or a sender may write",
}


def check(
    specs: Iterable[TopicSpec], found: Mapping[str, TopicState | None], prefix: str, brokers: int, *, local: bool
) -> list[Diagnosis]:
    """Compare the topics with what the ledger needs.

    Args:
        specs: the required topics, by their logical names.
        found: the states of topics, by their names on the brokers.
        brokers: their number.
        local: it is the local stack, whose single broker is meant.
    """
    lines: list[Diagnosis] = []
    few: list[TopicState] = []
    count = 0
    for spec in specs:
        name = prefix + spec.name
        state = found.get(name)
        if state is None:
            lines.append(ABOUT.problem(f"{name} does not exist", "run `grantledger topics create`"))
            continue
        lines += _settings(name, spec, state)
        lines += _copies(name, state, local=local)
        few += [state] if state.replicas < REPLICAS and not local else []
        count += 1
    if few:
        lines.append(_too_few_copies(few, count, brokers))
    if not lines:
        copies = "one copy each, as on a local stack" if local else f"{REPLICAS} copies or more"
        lines.append(ABOUT.ok(f"{counted(count, 'topics')} as required, {copies}"))
    return lines


def _settings(name: str, spec: TopicSpec, state: TopicState) -> Iterable[Diagnosis]:
    for setting, text in topic_differences(name, spec, state):
        if setting == _RETENTION:
            yield _retention(name, spec, int(state.config[_RETENTION]))
        elif setting in _FIXED:
            how = "" if setting == "partitions" else f"{_alter(name, setting, spec.config[setting])}; "
            yield ABOUT.problem(text, how + _FIXED[setting])
        else:
            yield ABOUT.warning(text, _alter(name, setting, spec.config[setting]))


def _retention(name: str, spec: TopicSpec, actual: int) -> Diagnosis:
    required = int(spec.config[_RETENTION])
    change = _alter(name, _RETENTION, spec.config[_RETENTION])
    text = f"{name} keeps records {_days(actual)}; it must keep them {_days(required)}"
    is_shorter = actual >= 0 and (required < 0 or actual < required)
    if not is_shorter:
        what = "payloads stay longer than the settings say" if spec.name.endswith(SEALED_SUFFIX) else "only disk space"
        return ABOUT.warning(text, f"{change} (it costs: {what}), or change payload_retention_days")
    if spec.name == sealed(FINDINGS_TOPIC):
        return ABOUT.problem(text, f"{change} at once: it registers sources and schemas, and no start works without it")
    if spec.name.endswith(SEALED_SUFFIX):
        return ABOUT.problem(text, f"{change}: the broker deletes the evidence, and only ClickHouse keeps it")
    return ABOUT.problem(text, f"{change}: records may expire before they are sealed or read")


def _too_few_copies(few: Sequence[TopicState], count: int, brokers: int) -> Diagnosis:
    """Return one line about all topics: on a small cluster, all have the same number."""
    how = (
        "give them more with kafka-reassign-partitions.sh"
        if brokers >= REPLICAS
        else f"a ledger needs {REPLICAS} brokers: add some, then give the topics more copies"
    )
    fewest = counted(min(state.replicas for state in few), "copies")
    return ABOUT.warning(
        f"{len(few)} of {count} topics have too few copies, down to {fewest}; they need {REPLICAS}", how
    )


def _copies(name: str, state: TopicState, *, local: bool) -> Iterable[Diagnosis]:
    if state.without_leader:
        yield ABOUT.problem(
            f"{name} has {counted(state.without_leader, 'partitions')} without a leader",
            "bring back the brokers that have them",
        )
    if state.config.get("unclean.leader.election.enable") == "true":
        yield ABOUT.problem(
            f"{name} allows unclean leader elections: a broker that lags may drop acknowledged records",
            _alter(name, "unclean.leader.election.enable", "false"),
        )
    if state.in_sync < state.replicas:
        yield ABOUT.warning(
            f"{name} has a partition with {state.in_sync} of {state.replicas} copies in sync",
            "bring back the broker that is away or behind",
        )
    if local:
        return
    least = int(state.config.get("min.insync.replicas", IN_SYNC))
    if least < IN_SYNC and state.replicas >= REPLICAS:
        yield ABOUT.warning(
            f"{name} acknowledges records that one broker has (min.insync.replicas={least})",
            _alter(name, "min.insync.replicas", str(IN_SYNC)),
        )


def _days(milliseconds: int) -> str:
    return "for ever" if milliseconds < 0 else f"for {milliseconds / 86_400_000:g} days"


def _alter(name: str, setting: str, value: str) -> str:
    return f"kafka-configs.sh --alter --topic {name} --add-config {setting}={value}"


def examine(cluster: Cluster, specs: Iterable[TopicSpec], brokers: int, *, local: bool) -> list[Diagnosis]:
    """Read the topics, and check them. Raises KafkaUnavailableError."""
    specs = list(specs)
    return check(specs, read_topics(cluster, specs), cluster.topic_prefix, brokers, local=local)
