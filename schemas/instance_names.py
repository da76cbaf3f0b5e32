"""Other names of installations: a tool may be imported with ``--instance`` once and without it the next time.

The watch policy maps them to one name. It is on record as ``config.changed``, from which other processes read it.
Access keys, and the comparison of a source with the issuer of an id, use the one name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .access_key import SourceName
from .own_sources import WATCH
from .rules import ISSUERS

POLICY_NAME = "watch-policy"
"""``resource.id`` of the events that contain the watch policy."""
INSTALLATIONS = "installation"
"""Key of the policy: a list of objects with ``system``, ``instance`` and ``other_names``."""


class InstanceNames:
    """The name that each other name of an installation stands for."""

    def __init__(self, names: Mapping[SourceName, str] | None = None) -> None:
        self._names = {source: (source[0], instance) for source, instance in (names or {}).items()}

    def __eq__(self, other: object) -> bool:
        """Whether both map the same names."""
        return isinstance(other, InstanceNames) and self._names == other._names

    def __hash__(self) -> int:
        """Equal mappings have equal hashes."""
        return hash(frozenset(self._names.items()))

    def of(self, source: SourceName) -> SourceName:
        """Return a source by the one name of its installation."""
        return self._names.get((source[0], source[1]), source) if self._names else source

    def of_text(self, text: str) -> str:
        """Return the text ``system/instance`` of a source, by the one name of its installation."""
        return next(("/".join(new) for old, new in self._names.items() if "/".join(old) == text), text)

    def in_event(self, datum: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a decoded event that names its source and the issuers of its ids by the one name of each."""
        if not self._names:
            return datum
        found = {name: datum.get(name) for name in ("source", *ISSUERS)}
        renamed = {name: self._renamed(source) for name, source in found.items() if source}
        return {**datum, **renamed}

    def _renamed(self, source: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**source, "instance": self.of((source["system"], source["instance"]))[1]}


NO_NAMES = InstanceNames()


def names_in(policy: bytes) -> InstanceNames:
    """Return the names in a watch policy on record. One that cannot be read maps none."""
    names: dict[SourceName, str] = {}
    try:
        for one in json.loads(policy).get(INSTALLATIONS, ()):
            names |= {(str(one["system"]), str(name)): str(one["instance"]) for name in one["other_names"]}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return NO_NAMES
    return InstanceNames(names)


def names_from(datum: Mapping[str, Any], deployment: str) -> InstanceNames | None:
    """Return the names that a believed event of ``access.findings`` puts in force; None if it is no watch policy."""
    if datum.get("event_type") != "config.changed" or (datum.get("resource") or {}).get("id") != POLICY_NAME:
        return None
    source = datum["source"]
    if (source["system"], source["instance"]) != (WATCH, deployment):
        return None
    return names_in(datum.get("raw") or b"")
