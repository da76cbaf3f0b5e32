"""The adapters: each maps the audit records of one tool to events. ``docs/adapters.md`` documents every mapping.

To add a tool, follow "Write an adapter" in ``docs/adapters.md``: it has a complete example and lists every other file
to change.

Shared by all adapters: ``contract.py`` (the base class), ``values.py`` (ids, addresses, times) and
``producers/json_fields.py`` (typed access to JSON members).
"""

from __future__ import annotations

import difflib
from typing import Any

from ...base.errors import UsageError
from ..json_fields import Fields, Location, RecordError
from .cloudtrail.adapter import CloudTrailAdapter
from .contract import Adapter, Mapped, Skipped
from .hoop.adapter import HoopAdapter
from .teleport.adapter import TeleportAdapter
from .vault.adapter import VaultAdapter

_ALL: tuple[type[Adapter], ...] = (CloudTrailAdapter, HoopAdapter, TeleportAdapter, VaultAdapter)
ADAPTERS: dict[str, type[Adapter]] = {adapter.SYSTEM: adapter for adapter in _ALL}
EVENT = "event"
"""What :func:`recognise` returns for an event of our own."""

__all__ = [
    "ADAPTERS",
    "EVENT",
    "Adapter",
    "Fields",
    "Location",
    "Mapped",
    "RecordError",
    "Skipped",
    "UnknownToolError",
    "make_adapter",
    "recognise",
]


class UnknownToolError(UsageError):
    """There is no adapter for this tool. The message suggests a similar name and lists all tools."""

    def __init__(self, tool: str) -> None:
        similar = difflib.get_close_matches(tool, ADAPTERS, n=1)
        hint = f"Did you mean {similar[0]!r}? " if similar else ""
        super().__init__(f"no adapter for {tool!r}. {hint}Available: {', '.join(sorted(ADAPTERS))}")


def recognise(record: dict[str, Any]) -> str | None:
    """Return the tool that probably wrote a record, ``EVENT`` for one of our own events as JSON, or None."""
    if {"event_type", "subject"} <= record.keys():
        return EVENT
    return next((tool for tool, adapter in ADAPTERS.items() if adapter.owns(record)), None)


def make_adapter(tool: str, *, instance: str | None = None, tenant: str = "default") -> Adapter:
    """Return the adapter for a tool; raise UnknownToolError if there is none. For the options, see :class:`Adapter`."""
    if tool not in ADAPTERS:
        raise UnknownToolError(tool)
    return ADAPTERS[tool](instance=instance, tenant=tenant)
