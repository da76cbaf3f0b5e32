"""The status of a pipeline, as ``up`` and ``status`` show it: its progress, and the troubles of its processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..kafka.cluster import Cluster
from ..kafka.errors import KafkaUnavailableError
from ..kafka.identity import all_partitions
from ..kafka.offsets import Partition, end_offsets
from ..schemas.event import ACTIVITY_TOPIC, FINDINGS_TOPIC, LIFECYCLE_TOPIC, QUERIES_TOPIC
from .open_findings import FindingCount
from .process import Samples, read_samples, status_path
from .settings import Settings
from .stack_file import is_running, read_stack
from .watch_progress import watch_trouble
from .watches import watch_names

NO_SANDBOX = (
    "the store has no sandbox, because this kernel has no Landlock (Linux 5.19 or later): a hole in the SQL gate could "
    "read the files of its user"
)
SUPERVISOR_FILE = Path("run") / "processes.json"


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process on this machine. ``trouble`` is a message for people."""

    name: str
    pid: int | None
    restarts: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Progress and troubles. Counts are totals of the ledger; None while the process that counts does not answer."""

    events: int
    sealed: int | None
    stored: int | None
    last_checkpoint: datetime | None
    last_anchor: datetime | None
    findings: FindingCount | None
    processes: tuple[ProcessStatus, ...]
    troubles_of: Mapping[str, str]
    """Messages about troubles, by the process or the log that has the trouble."""
    warnings: tuple[str, ...] = ()
    """What is weaker than usual on this machine. Nothing fails."""

    @property
    def troubles(self) -> tuple[str, ...]:
        """All messages about troubles."""
        return tuple(self.troubles_of.values())

    @property
    def lag(self) -> int | None:
        """Events in Kafka that cannot be queried yet."""
        return None if self.stored is None else max(0, self.events - self.stored)

    def as_json(self) -> dict[str, Any]:
        """Return the status as plain values."""
        shown = asdict(self) | {"troubles": self.troubles, "lag": self.lag}
        del shown["findings"], shown["troubles_of"]
        open_findings, critical = self.findings or (None, None)
        return shown | {"open_findings": open_findings, "critical_findings": critical}


def read_status(
    settings: Settings,
    cluster: Cluster | None,
    processes: Sequence[ProcessStatus],
    findings: FindingCount | None,
) -> Status:
    """Read the status from Kafka and from the metrics of the processes on this machine."""
    samples: Samples = {}
    watches, found = watch_names(settings.lifecycle_shards), list(processes)
    for at, process in enumerate(processes):
        own = read_samples(settings.data_dir, process.name)
        if process.name in watches and process.trouble is None:
            found[at] = replace(process, trouble=watch_trouble(settings.data_dir, process.name, own))
        for key, value in own.items():
            samples[key] = max(value, samples.get(key, 0.0))
    troubles = {process.name: process.trouble for process in found if process.trouble}
    stopped = [labels for (name, labels), value in samples.items() if name == "grantledger_seal_stopped" and value]
    troubles |= {f"sealing on {labels}": f"sealing is stopped on {labels}" for labels in stopped}
    return Status(
        events=count_events(ends_in_kafka(cluster), samples) if cluster is not None else 0,
        sealed=_reported(samples, "grantledger_log_size_entries"),
        stored=_reported(samples, "grantledger_stored_log_size_entries"),
        last_checkpoint=_time(samples, "grantledger_last_checkpoint_timestamp_seconds"),
        last_anchor=_time(samples, "grantledger_last_anchor_timestamp_seconds"),
        findings=findings,
        processes=tuple(found),
        troubles_of=troubles,
        warnings=(NO_SANDBOX,) if samples.get(("grantledger_store_sandbox", "")) == 0 else (),
    )


def processes_here(settings: Settings) -> list[ProcessStatus]:
    """Return the processes of the running stack; without one, those that ``grantledger run`` started here."""
    if read_stack(settings.data_dir):
        try:
            found = json.loads((settings.data_dir / SUPERVISOR_FILE).read_text())
            return [ProcessStatus(**one) for one in found]
        except (OSError, ValueError, TypeError):
            return []  # it is still starting
    alone = []
    watches = watch_names(settings.lifecycle_shards)
    for name in ("seal", "store", "anchor", *watches, "sweep", "alert", "enforce", "gateway"):
        try:
            pid = int(json.loads(status_path(settings.data_dir, name).read_text())["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        trouble = None if is_running(pid) else f"{name} (pid {pid}) ended without a clean stop"
        alone.append(ProcessStatus(name, pid, trouble=trouble))
    return alone


def write_processes(data_dir: Path, processes: Sequence[ProcessStatus]) -> None:
    """Publish the state of supervised processes to other commands."""
    path = data_dir / SUPERVISOR_FILE
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps([asdict(process) for process in processes]))
    draft.replace(path)


def ends_in_kafka(cluster: Cluster) -> dict[Partition, int]:
    """Return the end offsets of the events from access systems, without the findings of the pipeline."""
    try:
        return end_offsets(cluster, all_partitions(cluster, (LIFECYCLE_TOPIC, ACTIVITY_TOPIC)))
    except KafkaUnavailableError:
        return {}


def count_events(ends: Mapping[Partition, int], samples: Samples) -> int:
    """Return the number of events up to these offsets.

    Offsets also count transaction markers. So count the sealed entries, and offsets from the sealer's position on.
    """
    events = 0
    for (topic, number), end in ends.items():
        labels = f"partition={number},topic={topic}"
        position = samples.get(("grantledger_seal_position_offset", labels), 0.0)
        events += int(samples.get(("grantledger_log_size_entries", labels), 0.0)) + max(0, end - int(position))
    return events


def total(samples: Samples, name: str) -> int:
    """Return the sum of a metric over its labels, without the pipeline's own logs."""
    own = (f"topic={FINDINGS_TOPIC}", f"topic={QUERIES_TOPIC}")
    counted = (value for (metric, at), value in samples.items() if metric == name and not any(one in at for one in own))
    return int(sum(counted))


def _reported(samples: Samples, name: str) -> int | None:
    """Return the total of a metric; None if no process reports it yet."""
    return total(samples, name) if any(metric == name for metric, _ in samples) else None


def _time(samples: Samples, name: str) -> datetime | None:
    seconds = samples.get((name, ""), 0.0)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
