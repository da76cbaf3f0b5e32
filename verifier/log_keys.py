"""Step 7 for the list of keys: each later key is named by an entry that was sealed under the key before it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..ledger.key_change import KeyChange, in_order, missing_keys, own_log_of, unfounded
from ..ledger.keys import LogKeys
from .anchors import Logs, Lost
from .steps import Problem


def changes_in(logs: Logs) -> list[KeyChange]:
    """Return the verified changes of the log key, in order."""
    return in_order(change for log in logs.values() for change in log.key_changes if change.index < log.head[0])


def check_log_keys(keys: LogKeys, logs: Logs, deployment: str, lost: Lost | None) -> Iterator[Problem | str]:
    """Yield a problem for each key of the list that no entry names as the list does.

    A text instead of a problem says why a key could not be checked: its entry is not here yet.

    Args:
        lost: see :func:`.anchors.lost_heads`; None if nothing may be missing.
    """
    changes = changes_in(logs)
    for number in range(1, len(keys.keys)):
        if not (reason := unfounded(keys, number, changes)):
            continue
        place = own_log_of(keys.keys[number], deployment)
        if place is None:
            yield Problem(deployment, None, "log_key", f"key {number + 1} of the list lists no log of {deployment}")
            continue
        origin, size = place
        log = logs.get(origin)
        if lost is not None and origin in lost:
            continue
        if log is not None and log.problem is not None:
            continue  # what follows the problem was not read
        if log is None or log.head[0] < size:
            yield f"the entry key.changed that names key {number + 1} of the list is not here (yet)"
        else:
            yield Problem(origin, size - 1, "log_key", f"key {number + 1} of the list: {reason}")


def newer_key(keys: LogKeys, logs: Logs) -> str:
    """Return why the list may be older than the ledger; empty if it is not."""
    missing = missing_keys(keys, changes_in(logs))
    if not missing:
        return ""
    return (
        f"{missing[-1]} names a key that the list of keys does not have. Bring the present list (log.pub); if there is "
        "none, `grantledger keys rotate` was interrupted: run it again"
    )
