"""What waits on this machine for Kafka or for a channel: spools and outboxes, by the metrics of the processes."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.text import counted
from ..process import Samples, read_samples
from ..settings import Settings
from .diagnosis import Diagnosis, Subject

ABOUT = Subject("spools")
OLD_SECONDS = 300.0


def check(samples: Mapping[str, Samples]) -> list[Diagnosis]:
    """Return what waits. ``samples``: the metrics of the processes here, by their names."""
    lines = []
    for process, found in samples.items():
        if statements := _sum(found, "grantledger_query_spool_statements"):
            text = f"{counted(int(statements), 'statements')} of people wait in {process} for Kafka"
            lines.append(
                ABOUT.warning(text, "nothing if they become fewer; else see why Kafka refuses them in its log")
            )
        if size := _sum(found, "grantledger_gateway_spool_bytes"):
            text = f"{size / (1 << 20):,.1f} MiB of events wait on the spool of {process} for Kafka"
            lines.append(ABOUT.warning(text, "nothing if they become fewer; else see its /readyz"))
        pending, oldest = (_sum(found, f"grantledger_alert_{name}") for name in ("pending", "oldest_pending_seconds"))
        if pending and oldest > OLD_SECONDS:
            text = f"{counted(int(pending), 'alerts')} not delivered by {process} for {oldest / 60:,.0f} minutes"
            lines.append(ABOUT.problem(text, "`grantledger channels` names the channel and its last error"))
        if (late := _most(found, "grantledger_follow_lag_seconds")) > OLD_SECONDS:
            text = f"{process} has had records for {late / 60:,.0f} minutes that Kafka has not acknowledged"
            lines.append(ABOUT.problem(text, "see its /readyz"))
    if lines:
        return lines
    names = ("query_spool", "gateway_spool", "alert_pending", "follow_lag")
    spools = [one for one, found in samples.items() if any(name in key for key, _ in found for name in names)]
    return [ABOUT.ok(f"nothing waits on the spool of {', '.join(spools)}" if spools else "no process here has one")]


def _sum(samples: Samples, metric: str) -> float:
    return sum(value for (name, _), value in samples.items() if name == metric)


def _most(samples: Samples, metric: str) -> float:
    return max((value for (name, _), value in samples.items() if name == metric), default=0.0)


def examine(settings: Settings, processes: list[str]) -> list[Diagnosis]:
    """Read the metrics of processes of this data folder."""
    return check({name: read_samples(settings.data_dir, name) for name in processes})
