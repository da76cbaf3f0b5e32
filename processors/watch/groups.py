"""Groups of names by what they have in common. One of one name is no set: nearly all are, and sets are large."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")


def members(found: str | set[str]) -> set[str]:
    """Return one name, several or none as a set."""
    return found if isinstance(found, set) else {found} - {""}


def join(groups: dict[Key, str | set[str]], key: Key, member: str) -> None:
    """Add a member to a group."""
    found = groups.setdefault(key, member)
    if isinstance(found, set):
        found.add(member)
    elif found != member:
        groups[key] = {found, member}


def leave(groups: dict[Key, str | set[str]], key: Key, member: str) -> None:
    """Take a member out of a group; one without members is gone."""
    left = members(groups.get(key, "")) - {member}
    if left:
        groups[key] = left if len(left) > 1 else left.pop()
    else:
        groups.pop(key, None)
