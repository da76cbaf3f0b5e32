"""The roles of a ClickHouse server, as SQL: the store writes, analysts read views, auditors read everything. Pure.

A role is made once per database and carries its name, so that several deployments can share a server. Users are made by
the administrator, who grants each of them one role (docs/clickhouse-server.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from ..base.errors import UsageError
from .erasure import ERASED_COLUMNS
from .migrate import available, record_statements
from .state_statements import LOOKUPS
from .states import TABLES as STATE_TABLES

QUERY_LOG: Final = "query_log"
"""The view with the statements of people. Only auditors read it."""
COMPUTED: Final = frozenset({
    "computed_requests", "computed_access", "computed_grants", "computed_findings", "computed_activity",
    "sessions_of_grants", "recorded_grants", "unknown_grants",
})  # fmt: skip
"""Definitions of what other views show, and parts of them. Only those views and the store need them."""
WRITTEN: Final = ("entries", "origins", "anchors", "receipts", *STATE_TABLES, "state_refreshes")
"""The tables into which the store inserts."""
TENANT_COLUMN: Final = "tenant"
_NEVER_A_HASH: Final = "0" * 64
"""Nobody knows a password with this SHA-256."""
_LOOKUPS: Final = ", ".join(f"{name} = {value}" for name, value in LOOKUPS.items())
_ANALYST_LIMITS: Final = f"max_execution_time = 30 MIN 1 MAX 300, max_memory_usage = 1073741824 CONST, {_LOOKUPS}"
_CREATE: Final = re.compile(r"^CREATE (TABLE|VIEW) (\w+)\n\(\n(.*?)\n\)", re.MULTILINE | re.DOTALL)
_CREATE_AS: Final = re.compile(r"^CREATE TABLE (\w+) AS (\w+)$", re.MULTILINE)
_COLUMN: Final = re.compile(r"^    `?(\w+)`? ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its rights.

    Attributes:
        name: its name on the server.
        rights: what follows ``GRANT``, without the grantee, for example ``SELECT ON audit.events``.
        purpose: for whom it is, in a few words.
        settings: the settings of its profile; empty: it has none.
        tenant: the only tenant whose rows it shows; None: those of all tenants.
    """

    name: str
    rights: tuple[str, ...]
    purpose: str
    settings: str = ""
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class ServerRoles:
    """The roles for one database."""

    database: str

    @property
    def definer(self) -> str:
        """The user with whose rights views read their tables. Nobody can log in as this user."""
        return f"grantledger_{self.database}_views"

    @property
    def writer(self) -> Role:
        """For the store: inserts, and reads what it compares with Kafka. It changes only what an erasure empties."""
        erased = ", ".join(map(identifier, ERASED_COLUMNS))
        rights = (
            f"SELECT ON {self.database}.*",
            *(f"INSERT ON {self.database}.{table}" for table in WRITTEN),
            *(f"ALTER DELETE ON {self.database}.{table}" for table in STATE_TABLES),
            f"OPTIMIZE ON {self.database}.live_grants",
            f"ALTER UPDATE({erased}) ON {self.database}.entries",
        )
        return Role(self._name("writer"), rights, "the user of `run store` and `recompute`")

    @property
    def analyst(self) -> Role:
        """Reads the views, without evidence and without the statements of people."""
        rights = tuple(f"SELECT ON {self.database}.{view}" for view in analyst_views())
        settings = f"readonly = 2, {_ANALYST_LIMITS}"
        return Role(self._name("analyst"), rights, "analysts, dashboards and `query`", settings)

    @property
    def auditor(self) -> Role:
        """Reads everything, and sees row policies, which `verify` checks."""
        rights = (f"SELECT ON {self.database}.*", "SHOW ROW POLICIES ON *.*")
        purpose = "auditors, `run sweep`, `verify`, `grants` and our other commands"
        return Role(self._name("auditor"), rights, purpose, _LOOKUPS)

    def tenant(self, tenant: str) -> Role:
        """Reads the rows of one tenant, in the views that say to which tenant a row belongs."""
        rights = tuple(f"SELECT ON {self.database}.{view}" for view in tenant_views())
        purpose, settings = f"analysts of the tenant {tenant}", f"readonly = 1, {_ANALYST_LIMITS}"
        return Role(self._name(f"tenant_{tenant}"), rights, purpose, settings, tenant)

    def all(self, tenants: Iterable[str]) -> list[Role]:
        """Return the roles, with those of the tenants."""
        return [self.writer, self.analyst, self.auditor, *map(self.tenant, dict.fromkeys(tenants))]

    def statements(self, tenants: Sequence[str] = ()) -> Iterator[str]:
        """Yield the statements that make the roles. They can be repeated, and bring the roles up to date.

        The tables and views must exist.
        """
        definer = identifier(self.definer)
        identified = f"IDENTIFIED WITH sha256_hash BY '{_NEVER_A_HASH}' HOST NONE"
        yield f"CREATE USER IF NOT EXISTS {definer} {identified}"
        yield f"GRANT SELECT ON {self.database}.* TO {definer} WITH REPLACE OPTION"
        for view in objects("VIEW"):
            yield f"ALTER TABLE {self.database}.{view} MODIFY SQL SECURITY DEFINER DEFINER = {definer}"
        roles = self.all(tenants)
        for role in roles:
            yield f"CREATE ROLE IF NOT EXISTS {identifier(role.name)}"
            yield f"GRANT {', '.join(role.rights)} TO {identifier(role.name)} WITH REPLACE OPTION"
            if role.settings:
                name = identifier(role.name)
                yield f"CREATE SETTINGS PROFILE OR REPLACE {name} SETTINGS {role.settings} TO {name}"
        yield from self._policies([role for role in roles if role.tenant is not None])

    def _policies(self, tenants: Sequence[Role]) -> Iterator[str]:
        """Yield the row policies. A view with a policy for anyone also needs one for those who see all its rows."""
        seeing = ", ".join(
            identifier(name)
            for name in (self.definer, *(role.name for role in (self.writer, self.analyst, self.auditor)))
        )
        for view in tenant_views() if tenants else ():
            where = f"{self.database}.{view}"
            yield f"CREATE ROW POLICY OR REPLACE {identifier(self._name('all_rows'))} ON {where} USING 1 TO {seeing}"
            for role in tenants:
                name = identifier(role.name)
                condition = tenant_condition(role.tenant or "")
                yield f"CREATE ROW POLICY OR REPLACE {name} ON {where} USING {condition} TO {name}"

    def is_own_policy(
        self, table: str, condition: str, *, restrictive: bool, everybody: bool, to: Sequence[str]
    ) -> bool:
        """Return whether a row policy shows every row, or hides rows from the role of one tenant only."""
        if restrictive or table not in tenant_views():
            return False
        prefix = self._name("tenant_")
        own = [name.removeprefix(prefix) for name in to if name.startswith(prefix)]
        return condition == "1" or (
            not everybody and len(to) == len(own) == 1 and condition == tenant_condition(own[0])
        )

    def _name(self, kind: str) -> str:
        return f"grantledger_{self.database}_{kind}"


def script(database: str, tenants: Sequence[str]) -> Iterator[str]:
    """Yield every statement that makes an empty server ready: database, tables, views, roles."""
    yield f"CREATE DATABASE IF NOT EXISTS {database}"
    yield f"USE {database}"
    yield from record_statements()
    yield from ServerRoles(database).statements(tenants)


@cache
def objects(kind: str) -> Mapping[str, tuple[str, ...]]:
    """Return the columns of every table (``TABLE``) or view (``VIEW``) of the migrations, by name."""
    texts = [migration.text for migration in available()]
    found = {
        (each, name): tuple(_COLUMN.findall(columns)) for text in texts for each, name, columns in _CREATE.findall(text)
    }
    found |= {("TABLE", name): found["TABLE", of] for text in texts for name, of in _CREATE_AS.findall(text)}
    return {name: columns for (each, name), columns in found.items() if each == kind}


def analyst_views() -> tuple[str, ...]:
    """Return the views that analysts read."""
    return tuple(view for view in objects("VIEW") if view not in COMPUTED | {QUERY_LOG})


def tenant_views() -> tuple[str, ...]:
    """Return the views of analysts that say to which tenant a row belongs."""
    return tuple(view for view in analyst_views() if TENANT_COLUMN in objects("VIEW")[view])


def tenant_condition(tenant: str) -> str:
    """Return the condition of a tenant's row policy, as ClickHouse writes it."""
    return f"{TENANT_COLUMN} = {literal(tenant)}"


def identifier(name: str) -> str:
    """Return a name in SQL, in quotes if it needs them."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Return a text in SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def check_tenants(tenants: Iterable[str]) -> None:
    """Raise an error for a tenant whose name cannot be part of a role's name."""
    for tenant in tenants:
        if not tenant or not tenant.isprintable():
            raise UsageError(f"--tenant: {tenant!r} is empty or has characters that cannot be printed")
