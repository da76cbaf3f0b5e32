"""Older private keys of the logs: which logs still need them, so that the others can be deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ...kafka.identity import all_partitions
from ...kafka.sealed_log import SealedLogs, SealedLogStoppedError
from ...ledger.keys import LogKeys
from ...schemas.topics import INPUT_TOPICS
from ..keys import older_key_file
from ..settings import Settings
from .diagnosis import Diagnosis
from .keys import ABOUT


def check(
    keys: LogKeys, here: Mapping[int, str], missing: Mapping[int, str], sizes: Mapping[str, int]
) -> list[Diagnosis]:
    """Return what is to be said about the older private keys on a machine that signs.

    Args:
        here: the files of those that are here, by their number in the list, counted from 1.
        missing: the files of the others.
        sizes: the size of every log, by origin.
    """
    lines = []
    for number, path in sorted({**here, **missing}.items()):
        public_key = keys.keys[number - 1].public_key
        logs = sorted(origin for origin, size in sizes.items() if keys.at(origin, size) == public_key)
        if number in here and logs:
            lines.append(ABOUT.ok(f"{path} is still needed: it signs the heads of {_listed(logs)}"))
        elif number in here:
            lines.append(ABOUT.ok(f"{path} is not needed any more: delete it, and its copies"))
        elif logs:
            text = f"there is no {path}: the heads of {_listed(logs)} are not stated again"
            lines.append(ABOUT.warning(text, "restore it from your backup, until these logs have a new entry"))
    return lines


def _listed(logs: Collection[str]) -> str:
    shown = sorted(logs)[:3]
    return ", ".join(shown) + (f" and {len(logs) - len(shown)} more" if len(logs) > len(shown) else "")


def examine(logs: SealedLogs, settings: Settings) -> list[Diagnosis]:
    """Look for the older private keys, if the key was replaced and this machine signs. Raises KafkaUnavailableError."""
    if len(logs.keys.keys) == 1 or not settings.private_key_path.exists():
        return []
    files = {number: older_key_file(settings, number).path for number in range(1, len(logs.keys.keys))}
    here = {number: str(path) for number, path in files.items() if path.exists()}
    missing = {number: str(path) for number, path in files.items() if number not in here}
    sizes = {}
    for topic, partition in all_partitions(logs.cluster, INPUT_TOPICS):
        try:
            last = logs.last(topic, partition)
        except SealedLogStoppedError:
            continue  # other checks report it
        if last is not None:
            sizes[last.batch.origin] = last.head.size
    return check(logs.keys, here, missing, sizes)
