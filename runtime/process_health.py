"""What the processes of a data folder say of themselves: their ``/livez`` and ``/readyz``, read by other commands."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from .process import status_path

ANSWER_SECONDS = 5.0
"""A process that looks whether Kafka answers takes two seconds."""


@dataclass(frozen=True, slots=True)
class ProcessHealth:
    """The answers of one process.

    Attributes:
        version: of grantledger, as the process reports it.
        waits: what it waits for; none if it is ready.
        notes: what else is worth knowing.
        hanging: its loops that do not turn.
        name: of the process.
    """

    version: str
    waits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hanging: tuple[str, ...] = ()
    name: str = ""


def read_health(data_dir: Path, name: str) -> ProcessHealth | None:
    """Return what the process with a name says; None if there is none, or if it does not answer."""
    try:
        url = str(json.loads(status_path(data_dir, name).read_text())["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ask_health(url.removesuffix("/metrics"))


def ask_health(url: str) -> ProcessHealth | None:
    """Return what the process at an address says; None if it does not answer."""
    try:
        ready, alive = _get(f"{url}/readyz"), _get(f"{url}/livez")
        waits, notes = ([str(one["text"]) for one in ready[kind]] for kind in ("waits", "notes"))
        hanging = tuple(map(str, alive["problems"]))
        return ProcessHealth(str(ready["version"]), tuple(waits), tuple(notes), hanging, str(ready["process"]))
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return None


def _get(url: str) -> Any:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - an address of a process of ours
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except HTTPError as error:  # 503: not ready
        with error:
            return json.load(error)
