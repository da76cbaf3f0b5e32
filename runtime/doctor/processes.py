"""The processes: those of this data folder by what they say, those of the deployment by their consumer groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from ... import __version__
from ...base.text import counted
from ...kafka.cluster import Cluster
from ...kafka.errors import unavailable
from ...kafka.membership import group_state
from ...schemas.topics import seal_group, store_group, watch_group
from ..process_health import ProcessHealth, ask_health, read_health
from ..settings import Settings
from ..stack_file import is_running
from ..status import processes_here
from .diagnosis import Diagnosis, Subject

ABOUT, VERSIONS, GROUPS = Subject("processes"), Subject("versions"), Subject("deployment")


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this data folder, or of ``process_addresses``.

    Attributes:
        pid: None if its supervisor has none, or if it runs elsewhere.
        runs: it has a process.
        version: that it wrote at its start; empty if it is not known.
        trouble: what its supervisor says.
        health: what it says; None if it does not answer.
    """

    name: str
    pid: int | None
    runs: bool
    version: str = ""
    trouble: str | None = None
    health: ProcessHealth | None = None
    address: str = ""
    """Of a process elsewhere."""


def check(processes: Iterable[Process], folder: Path) -> list[Diagnosis]:
    """Return what is to be said about each process."""
    lines = [_line(one, folder) for one in processes]
    return lines or [
        ABOUT.unchecked(f"none runs for {folder}", "name those of other folders and machines in process_addresses")
    ]


def _line(one: Process, folder: Path) -> Diagnosis:
    log = "its log has the reason"
    if not one.address:
        log += f" ({folder / 'logs' / one.name}.log under `grantledger up`)"
    if not one.runs:
        text = one.trouble or f"{one.name} (pid {one.pid}) ended without a clean stop"
        return ABOUT.problem(text, f"start it again; {log}")
    where = f"{one.name} at {one.address}" if one.address else f"{one.name} (pid {one.pid})"
    if one.health is None:
        return ABOUT.problem(f"{where} does not answer /readyz", f"restart it if that lasts; {log}")
    if one.health.hanging:
        return ABOUT.problem(f"{where} hangs: {'; '.join(one.health.hanging)}", f"restart it; {log}")
    if one.health.waits:
        return ABOUT.problem(f"{where} is not ready: {'; '.join(one.health.waits)}", f"ask again in a minute; {log}")
    if one.trouble:
        return ABOUT.problem(one.trouble, log)
    return ABOUT.ok(f"{where} is ready{''.join(f'; {note}' for note in one.health.notes)}")


def check_versions(processes: Iterable[Process], own: str = __version__) -> list[Diagnosis]:
    """Return which processes have another version than this command."""
    of = {one.address or one.name: one.version for one in processes if one.runs and one.version}
    other = {name: version for name, version in of.items() if version != own}
    if not other:
        what = f"; so have {counted(len(of), 'processes')}" if of else ""
        return [VERSIONS.ok(f"this command has grantledger {own}{what}")]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(other.items()))
    return [VERSIONS.warning(f"this command is grantledger {own}, but {listed}", "restart those, or upgrade this one")]


def check_groups(members: Mapping[str, int], deployment: str) -> list[Diagnosis]:
    """Return which processes the deployment has anywhere.

    Args:
        members: the numbers of members of the consumer groups ``seal``, ``store``, ``watch`` or ``watch-N``.
    """
    lost = {
        "seal": "nothing is sealed",
        "store": "nothing is stored, and Kafka keeps the backlog",
        "watch": "no deadline is judged",
    }
    lines = []
    for name, count in members.items():
        kind = name.partition("-")[0]
        if count == 0:
            shard = f"GRANTLEDGER_WATCH_SHARD={name.partition('-')[2]} " if "-" in name else ""
            lines.append(
                GROUPS.problem(
                    f"no `run {kind}` of {deployment} is connected to Kafka ({name}): {lost[kind]}",
                    f"start {shard}grantledger run {kind}",
                )
            )
    listed = ", ".join(f"{count} {name}" for name, count in members.items())
    return lines or [GROUPS.ok(f"connected to Kafka, on any machine: {listed}")]


def read_processes(settings: Settings) -> list[Process]:
    """Return the processes of the data folder: those of its supervisor, and those that have a status file.

    Those of ``process_addresses`` follow.
    """
    supervised = {one.name: one for one in processes_here(settings)}
    files = _status_files(settings.data_dir)
    found = []
    for name in [*supervised, *(name for name in files if name not in supervised)]:
        pid, version = files.get(name, (None, ""))
        status = supervised.get(name)
        pid = status.pid if status is not None and status.pid is not None else pid
        runs = pid is not None and is_running(pid)
        if status is not None and status.pid is None and not status.trouble:
            continue  # its work is done
        health = read_health(settings.data_dir, name) if runs and name in files else None
        if runs and health is None and name not in files:
            continue  # a sender of the stack that has no endpoint, or one that starts
        found.append(Process(name, pid, runs, version, status.trouble if status is not None else None, health))
    return [*found, *map(_elsewhere, settings.process_addresses)]


def _elsewhere(address: str) -> Process:
    health = ask_health(f"http://{address}")
    name, version = (health.name, health.version) if health is not None else ("the process", "")
    return Process(name, None, True, version, health=health, address=address)


def _status_files(data_dir: Path) -> dict[str, tuple[int | None, str]]:
    """Return pid and version of every process with a status file, by its name."""
    found: dict[str, tuple[int | None, str]] = {}
    for path in sorted((data_dir / "run").glob("*.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
            if "metrics" in content:
                found[path.stem] = int(content["pid"]), str(content.get("version", ""))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def read_groups(cluster: Cluster, deployment: str, shards: int) -> dict[str, int]:
    """Return the number of members of each group. Raises KafkaUnavailableError."""
    groups = {"seal": seal_group(deployment), "store": store_group(deployment)}
    for shard in range(shards):
        groups["watch" if shards == 1 else f"watch-{shard}"] = watch_group(deployment, shard, shards)
    try:
        return {name: len(group_state(cluster, group).assigned) for name, group in groups.items()}
    except KafkaException as error:
        raise unavailable("the consumer groups cannot be read", error) from error
