"""The entities to judge: those that changed, and those that depend on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from .entities import Entity, Kind
from .links import Links
from .reports import FEW


class ChangedEntities:
    """The entities that have changed since they were last judged.

    Args:
        grants_of_request: the grants of each request.
        sessions_of_link: the sessions of each grant or request.
    """

    def __init__(self, grants_of_request: Links[str], sessions_of_link: Links[str]) -> None:
        self._keys: dict[Kind, dict[str, None]] = {kind: {} for kind in get_args(Kind)}
        self._taken: dict[Kind, list[str]] = {kind: [] for kind in get_args(Kind)}
        """Keys of a judgement that proceeds, the next one last."""
        self._links: dict[Kind, Links[str]] = {"grant": grants_of_request, "session": sessions_of_link}
        self._with_many: dict[tuple[Kind, str], None] = {}
        """Kind of the dependents, and grant or request, where there are many of them."""

    def mark(self, kind: Kind, key: str) -> None:
        """Have an entity judged."""
        self._keys[kind][key] = None

    def mark_dependents(self, kind: Kind, key: str) -> None:
        """Have the grants of a request, or the sessions of a grant or request, judged."""
        dependents = self._links[kind].of(key)
        if not dependents:  # the usual case
            return
        if len(dependents) > FEW:  # marked once, however often this happens before the next judgement
            self._with_many[kind, key] = None
            return
        for one in dependents:
            self.mark(kind, one)

    def take(self, limit: int) -> Iterator[Entity]:
        """Yield marked entities in order of arrival, which are not marked any more.

        Counts of late records come last, because judging grants marks them.
        """
        self._resolve()
        for kind in self._keys:
            while limit > 0 and (taken := self._take(kind)):
                limit -= 1
                yield kind, taken.pop()

    def _take(self, kind: Kind) -> list[str]:
        taken = self._taken[kind]
        if not taken and self._keys[kind]:  # at once: each first key of a dict is found past all deleted ones
            taken += reversed(self._keys[kind])
            self._keys[kind] = {}
        return taken

    def _resolve(self) -> None:
        for kind, key in self._with_many:
            self._keys[kind].update(dict.fromkeys(self._links[kind].of(key)))
        self._with_many.clear()

    def __len__(self) -> int:
        """The number of entities to judge."""
        self._resolve()
        return sum(map(len, self._keys.values())) + sum(map(len, self._taken.values()))

    def __contains__(self, entity: Entity) -> bool:
        """Whether an entity may still have to be judged: each one of a kind while a judgement of many proceeds."""
        self._resolve()
        return bool(self._taken[entity[0]]) or entity[1] in self._keys[entity[0]]
