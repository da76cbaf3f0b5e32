"""The access key: which grant, request, session or event an id means, and who may report about it.

An id belongs to the source that issued it: two tenants, tools or installations may use one id for different things.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

SourceName = tuple[str, str]
"""System and instance of a source. An issuing source without an instance means any installation of the tool."""
NO_ISSUER: SourceName = ("", "")
"""Stands where there is no id."""


class AccessKey(NamedTuple):
    """A tenant, the source that issued an id, and the id."""

    tenant: str
    system: str
    instance: str
    id: str

    @property
    def issuer(self) -> SourceName:
        """The source that issued the id."""
        return self.system, self.instance


def issuer_of(source: SourceName, named: SourceName | None) -> SourceName:
    """Return the source that issued an id of an event: the one that the event names for it, or else its own source."""
    return named if named is not None and named[0] else source


def access_key(tenant: str, issuer: SourceName, id: str) -> str:
    """Return the key as one text, ``tenant/system/instance/id``. Different keys give different texts."""
    return scope_prefix(tenant, *issuer) + id


def parse_access_key(text: str) -> AccessKey:
    """Return the parts of a key.

    Raises:
        ValueError: the text is not a key.
    """
    tenant, system, instance, id = text.split("/", 3)
    return AccessKey(_unescape(tenant), _unescape(system), _unescape(instance), id)


def id_of(text: str) -> str:
    """Return the id of a key."""
    return text.split("/", 3)[3]


def is_issuer(source: SourceName, issuer: SourceName) -> bool:
    """Whether a source is the one that issued an id."""
    return source[0] == issuer[0] and issuer[1] in ("", source[1])


@lru_cache(maxsize=1 << 13)
def scope_prefix(tenant: str, system: str, instance: str) -> str:
    """Return the beginning of all keys of one issuing source in one tenant."""
    return join_parts(tenant, system, instance) + "/"


def join_parts(*parts: str) -> str:
    """Return names as one text, ``a/b/c``. Different names give different texts."""
    return "/".join(map(_escape, parts))


def split_parts(text: str) -> tuple[str, ...]:
    """Return the names of a text of :func:`join_parts`."""
    return tuple(map(_unescape, text.split("/")))


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace("/", "%2F")


def _unescape(part: str) -> str:
    return part.replace("%2F", "/").replace("%25", "%")
