"""How far a watch on this machine has judged: the watch writes it to a file, which remains when it hangs or dies."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .process import Samples, status_path
from .process_health import read_health
from .stack_file import is_running

STALE_SECONDS = 30.0
"""A watch judges every second. One that has judged nothing for so long is in trouble."""
_ACTIVE = "grantledger_watch_active"


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """The progress of the watch with one name on this machine.

    Attributes:
        pid: of its process, if it runs.
        judged_until: time up to which every grant has been judged; None if it never judged.
        stale: it has judged nothing for ``STALE_SECONDS``, and was not started meanwhile.
    """

    pid: int | None
    judged_until: datetime | None
    stale: bool


def write_progress(data_dir: Path, name: str, judged_until: float) -> None:
    """Write how far a watch has judged, in seconds since 1970. Raises OSError.

    It need not survive a crash of the machine, so nothing waits for the disk: the watch calls this every second.
    """
    path = _path(data_dir, name)
    draft = path.with_suffix(".judged-draft")
    draft.write_text(json.dumps({"judged_until": judged_until}))
    draft.replace(path)


def read_progress(data_dir: Path, name: str) -> WatchProgress:
    """Return the progress of a watch.

    Its age is that of the file, by the clock of this machine, because the watch does not judge by that clock.
    """
    status, latest = status_path(data_dir, name), 0.0
    pid, judged_until = None, None
    try:
        judged_until = datetime.fromtimestamp(json.loads(_path(data_dir, name).read_text())["judged_until"], UTC)
        latest = _path(data_dir, name).stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        pass
    try:
        found = int(json.loads(status.read_text())["pid"])
        pid = found if is_running(found) else None
        latest = max(latest, status.stat().st_mtime)  # written when it started
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        pass
    return WatchProgress(pid, judged_until, time.time() - latest > STALE_SECONDS)


def watch_trouble(data_dir: Path, name: str, samples: Samples) -> str | None:
    """Return for people that a running watch judges nothing; None if it judges, stands by or does not run.

    Args:
        samples: its metrics; empty if it does not answer.
    """
    progress = read_progress(data_dir, name)
    if progress.pid is None or not progress.stale or _stands_by(samples):
        return None
    until = progress.judged_until
    since = f"nothing since {until:%Y-%m-%d %H:%M:%S} UTC" if until is not None else "nothing yet"
    why = "it hangs: it does not answer"
    if samples:
        health = read_health(data_dir, name)
        why = "; ".join(health.waits) if health is not None else ""
        why = why or "it runs, and reads the log or waits for Kafka"
    return f"{name} (pid {progress.pid}) has judged {since}; {why}"


def _stands_by(samples: Samples) -> bool:
    return any(metric == _ACTIVE and not value for (metric, _), value in samples.items())


def _path(data_dir: Path, name: str) -> Path:
    return data_dir / "run" / f"{name}.judged"
