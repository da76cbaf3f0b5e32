"""The names that the watch policy gives: to installations of tools, to people, and to the environments of resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..schemas.access_key import SourceName
from ..schemas.instance_names import InstanceNames
from ..schemas.names import plain_name
from .access import Source

Name = Annotated[str, Field(min_length=1)]


class Strict(BaseModel):
    """A section of the policy: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Installation(Strict):
    """An installation of a tool that reports under several names. Everything else in the policy uses ``instance``."""

    system: Name
    instance: Name
    other_names: Annotated[tuple[Name, ...], Field(min_length=1)]


class Person(Strict):
    """A person whom tools know under several names."""

    name: Name
    identities: Annotated[tuple[Name, ...], Field(min_length=1)]


class Environment(Strict):
    """The environment of matching resources, where an event names none. Patterns use ``*`` and ``?``."""

    environment: Name
    system: str = "*"
    instance: str = "*"
    resource_kind: str = "*"
    resource: str = "*"


class Naming:
    """The names in a policy. Empty ones change nothing.

    Attributes:
        installations: the name that each other name of an installation stands for.
    """

    def __init__(
        self,
        installations: Sequence[Installation] = (),
        people: Sequence[Person] = (),
        environments: Sequence[Environment] = (),
    ) -> None:
        self.installations = InstanceNames(
            {(one.system, name): one.instance for one in installations for name in one.other_names}
        )
        self._people = {plain_name(name): one.name for one in people for name in (one.name, *one.identities)}
        self._environments = tuple(environments)
        self.person_of = lru_cache(maxsize=1 << 17)(self._person_of)
        self.environment_of = lru_cache(maxsize=1 << 14)(self._environment_of)

    def reviewer(self, name: str) -> str:
        """Return the name of the person with an identity; the identity itself if the policy does not name them."""
        return self._people.get(plain_name(name), name) if self._people else name

    def _person_of(self, subject: str, email: str) -> tuple[str, ...]:
        """Return the names of a subject: id, email address, and the name of the person with either of them."""
        known = (subject, email) if email and email != subject else (subject,)
        found = dict.fromkeys(self.reviewer(name) for name in known)
        return (*known, *(name for name in found if name not in known))

    def _environment_of(self, source: Source, resource_kind: str, resource: str) -> str:
        """Return the environment of a resource, empty if the policy gives none. Later entries win."""
        values = (source.system, source.instance, resource_kind, resource)
        for one in reversed(self._environments):
            patterns = (one.system, one.instance, one.resource_kind, one.resource)
            if all(map(matches_pattern, values, patterns)):
                return one.environment
        return ""


NO_NAMING = Naming()


def matches_pattern(value: str, pattern: str) -> bool:
    """Whether a value matches a pattern, in which ``*`` stands for any text and ``?`` for one character."""
    return pattern == "*" or fnmatchcase(value, pattern.replace("[", "[[]"))


def contradictions(installations: Sequence[Installation], people: Sequence[Person]) -> Iterator[str]:
    """Yield the problems of names: those that stand for two things."""
    known: dict[SourceName, str] = {}
    instances = {(one.system, one.instance) for one in installations}
    for one in installations:
        for name in one.other_names:
            text = f"{one.system}/{name}"
            if name == one.instance:
                yield f"installation: {text} is another name of itself"
            elif (one.system, name) in instances:
                yield f"installation: {text} has other names, and is one of {one.system}/{one.instance}"
            elif known.setdefault((one.system, name), one.instance) != one.instance:
                first = f"{one.system}/{known[one.system, name]}"
                yield f"installation: {text} is a name of {first} and of {one.system}/{one.instance}"
    owners: dict[str, int] = {}
    for number, person in enumerate(people):
        for name in (person.name, *person.identities):
            owner = owners.setdefault(plain_name(name), number)
            if owner != number:
                yield f"person: {name} is an identity of {people[owner].name} and of {person.name}"
