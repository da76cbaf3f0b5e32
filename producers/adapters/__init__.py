"""The adapters: each maps the audit records of one tool to events. ``docs/sources/`` documents every mapping.

To add a tool, follow "Write an adapter" in ``docs/adapters.md``: it has a complete example and lists every other file
to change.

Shared by all adapters: ``contract.py`` (the base class), ``values.py`` (ids, addresses, times) and
``producers/json_fields.py`` (typed access to JSON members).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from ...base.errors import UsageError
from ...base.toml import ConfigError
from ..json_fields import Fields, Location, RecordError
from ..redaction.redactor import Redactor
from .cloudtrail.adapter import CloudTrailAdapter
from .contract import DEFAULT_REDACTOR, EVENT_UNKNOWN, Adapter, Mapped, Skipped
from .hoop.adapter import HoopAdapter
from .kubernetes.adapter import KubernetesAdapter
from .mapping.adapter import SHIPPED, load_mapping
from .mcp.adapter import McpAdapter
from .postgresql.adapter import PostgresqlAdapter
from .teleport.adapter import TeleportAdapter
from .vault.adapter import VaultAdapter

_ALL: tuple[type[Adapter], ...] = (
    CloudTrailAdapter,
    HoopAdapter,
    KubernetesAdapter,
    McpAdapter,
    PostgresqlAdapter,
    TeleportAdapter,
    VaultAdapter,
)
_MAPPED: tuple[type[Adapter], ...] = tuple(map(load_mapping, sorted(SHIPPED.glob("*.toml"))))
ADAPTERS: dict[str, type[Adapter]] = {adapter.SYSTEM: adapter for adapter in (*_ALL, *_MAPPED)}
EVENT = "event"
"""What :func:`recognise` returns for an event of our own."""

__all__ = [
    "ADAPTERS",
    "DEFAULT_REDACTOR",
    "EVENT",
    "EVENT_UNKNOWN",
    "Adapter",
    "Fields",
    "Location",
    "Mapped",
    "RecordError",
    "Skipped",
    "UnknownToolError",
    "adapter_class",
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


def adapter_class(tool: str, mapping: Path | None = None) -> type[Adapter]:
    """Return the adapter of a tool, or of a mapping file for it.

    Raises:
        UnknownToolError: there is none.
        ConfigError: the mapping file has mistakes, or is for another tool.
    """
    if mapping is None:
        if tool not in ADAPTERS:
            raise UnknownToolError(tool)
        return ADAPTERS[tool]
    adapter = load_mapping(mapping)
    if tool != adapter.SYSTEM:
        raise ConfigError(f"{mapping}: is for {adapter.SYSTEM}, not for {tool}: name the tool {adapter.SYSTEM}")
    if any(adapter.SYSTEM == one.SYSTEM for one in _ALL):
        raise ConfigError(f"{mapping}: system: {tool} has an adapter of its own: choose another name")
    return adapter


def make_adapter(
    tool: str,
    *,
    instance: str | None = None,
    tenant: str = "default",
    mapping: Path | None = None,
    redactor: Redactor | None = DEFAULT_REDACTOR,
) -> Adapter:
    """Return an adapter at work. Errors as of :func:`adapter_class`; for the options, see :class:`Adapter`."""
    adapter = adapter_class(tool, mapping)(instance=instance, tenant=tenant)
    adapter.redactor = redactor
    return adapter
