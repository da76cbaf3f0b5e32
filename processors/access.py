"""The access, source and time types that the watch and the sweep share. Times are microseconds since 1970, by UTC."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from ..base.times import EPOCH
from ..schemas.access_key import join_parts, split_parts

SECOND = 1_000_000
"""Microseconds."""
HOUR = 3600 * SECOND
DAY = 86_400 * SECOND
NEVER = 1 << 62
"""A time that never comes."""
LATEST = 253_402_300_799_999_999
"""The last microsecond of the year 9999, where the calendar ends."""
MAX_NAME_LENGTH = 500
"""Characters of a name that a sender chose; a longer one might not fit into a Kafka record."""
LONGEST_REASON = 300
"""Characters of a reason: findings repeat it, and a state of a million grants keeps it in memory."""


class Access(NamedTuple):
    """Who may do what. Grants of one access overlap: it lasts as long as their union."""

    tenant: str
    subject: str
    resource_kind: str
    resource: str
    entitlement: str


class Source(NamedTuple):
    """A reporting tool, and which installation of it."""

    system: str
    instance: str

    def __str__(self) -> str:
        return f"{self.system}/{self.instance}"


OTHER_SOURCES = Source("*", "*")
"""Stands for all sources beyond the number that the watch follows one by one."""
EVERY_TENANT = "*"
"""Stands for all tenants in a finding about them."""


def tenant_key(tenant: str, name: str) -> str:
    """Return the key of a finding about a source, or something else with a name, within one tenant."""
    return f"{join_parts(tenant)}/{name}"


def split_tenant_key(key: str) -> tuple[str, str]:
    """Return tenant and name of a key of :func:`tenant_key`."""
    tenant, _, name = key.partition("/")
    return split_parts(tenant)[0], name


def to_datetime(micros: int) -> datetime:
    """Return a time as a datetime, limited to the years 1970 to 9999."""
    return EPOCH + timedelta(microseconds=min(max(micros, 0), LATEST))


def in_micros(seconds: float) -> int:
    """Return a duration in microseconds."""
    return int(seconds * SECOND)


def shorten(name: str) -> str:
    """Return a name that fits into a record. A name that was cut ends with a digest of the whole name."""
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{name[: MAX_NAME_LENGTH - 33]}~{digest}"


def shorten_source(source: Source) -> Source:
    """Return a source with names that fit into a record."""
    if len(source.system) <= MAX_NAME_LENGTH and len(source.instance) <= MAX_NAME_LENGTH:
        return source
    return Source(shorten(source.system), shorten(source.instance))
