"""The watches of a deployment: one for each lifecycle shard."""

from __future__ import annotations

from .children import ChildSpec
from .settings import Settings, SettingsError


def watch_name(settings: Settings) -> str:
    """Return the name of this watch process on its machine.

    Raises:
        SettingsError: there is no such shard.
    """
    if settings.watch_shard >= settings.lifecycle_shards:
        raise SettingsError(
            f"watch_shard is {settings.watch_shard}, and lifecycle_shards is {settings.lifecycle_shards}: shards are "
            "numbered from 0"
        )
    return watch_names(settings.lifecycle_shards)[settings.watch_shard]


def watch_names(shards: int) -> list[str]:
    """Return the names of the watch processes by their shard."""
    return ["watch"] if shards == 1 else [f"watch-{shard}" for shard in range(shards)]


def watch_children(shards: int) -> list[ChildSpec]:
    """Return the watch processes of a stack."""
    if shards == 1:
        return [ChildSpec("watch", ("run", "watch"))]
    return [
        ChildSpec(name, ("run", "watch"), environment={"GRANTLEDGER_WATCH_SHARD": str(shard)})
        for shard, name in enumerate(watch_names(shards))
    ]
