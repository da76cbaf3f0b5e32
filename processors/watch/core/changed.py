"""The entities to judge: those that changed, and those that depend on them."""

from __future__ import annotations

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
        self._links: dict[Kind, Links[str]] = {"grant": grants_of_request, "session": sessions_of_link}
        self._with_many: dict[tuple[Kind, str], None] = {}
        """Kind of the dependents, and grant or request, where there are many of them."""

    def mark(self, kind: Kind, key: str) -> None:
        """Have an entity judged."""
        self._keys[kind][key] = None

    def mark_dependents(self, kind: Kind, key: str) -> None:
        """Have the grants of a request, or the sessions of a grant or request, judged."""
        dependents = self._links[kind].of(key)
        if len(dependents) > FEW:  # marked once, however often this happens before the next judgement
            self._with_many[kind, key] = None
            return
        for one in dependents:
            self.mark(kind, one)

    @property
    def by_kind(self) -> dict[Kind, dict[str, None]]:
        """The keys of the entities to judge, by kind and in order of arrival."""
        for kind, key in self._with_many:
            self._keys[kind].update(dict.fromkeys(self._links[kind].of(key)))
        self._with_many.clear()
        return self._keys

    def __bool__(self) -> bool:
        return bool(self._with_many) or any(self._keys.values())

    def __contains__(self, entity: Entity) -> bool:
        """Whether an entity is still to be judged."""
        return entity[1] in self.by_kind[entity[0]]
