"""The adapters of the tools, by name. ``docs/adapters.md`` says what each makes of its records."""

from __future__ import annotations

from .cloudtrail.adapter import CloudTrailAdapter
from .contract import Adapter, Mapped, Skipped
from .hoop.adapter import HoopAdapter
from .reading import Place, RecordError
from .teleport.adapter import TeleportAdapter
from .vault.adapter import VaultAdapter

_ALL: tuple[type[Adapter], ...] = (CloudTrailAdapter, HoopAdapter, TeleportAdapter, VaultAdapter)
ADAPTERS: dict[str, type[Adapter]] = {adapter.SYSTEM: adapter for adapter in _ALL}

__all__ = ["ADAPTERS", "Adapter", "Mapped", "Place", "RecordError", "Skipped", "UnknownToolError", "make_adapter"]


class UnknownToolError(LookupError):
    """There is no adapter of that name; the message lists those there are."""


def make_adapter(tool: str, *, instance: str | None = None, tenant: str = "default") -> Adapter:
    """Return the adapter of a tool.

    Args:
        tool: its name in the registry.
        instance: ``source.instance``; where None, what each record says.
        tenant: ``tenant`` of every event.

    Raises:
        UnknownToolError: no adapter of that name.
    """
    adapter = ADAPTERS.get(tool)
    if adapter is None:
        raise UnknownToolError(f"no adapter for {tool!r}; there are {', '.join(sorted(ADAPTERS))}")
    return adapter(instance=instance, tenant=tenant)
