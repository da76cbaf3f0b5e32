"""Step 1 for the store itself: tables, views, row policies and SQL functions are those that our migrations make.

Analysts read views, and the verifier reads tables by name. So whoever may change definitions could show them other rows
than were verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..sinks.migrate import available
from ..sinks.server_roles import ServerRoles
from .reference_store import TABLES, ReferenceStoreError, normalized, reference_tables
from .steps import Problem

EVIDENCE_TABLES = ("entries", "origins", "anchors")
FUNCTIONS = "SELECT name FROM system.functions WHERE origin = 'SQLUserDefined' ORDER BY name"
POLICIES = (
    "SELECT name, database, `table`, select_filter, is_restrictive, apply_to_all, apply_to_list "
    "FROM system.row_policies WHERE database IN (currentDatabase(), '') "
    "AND (`table` != '' OR database != '') ORDER BY name"
)
_SECURITY = re.compile(
    r"\)(?: DEFINER = (?:\w+|`(?:[^`\\]|\\.)+`))? SQL SECURITY (?:DEFINER|INVOKER)"
    r"(?=(?: COMMENT '(?:[^'\\]|\\.)*')? AS (?:SELECT|WITH)\b)"
)
"""With whose rights a view reads its tables. It does not change which rows they have: only row policies do."""
_FAMILY = re.compile(r"ENGINE = (?:Replicated|Shared)(\w*MergeTree)(?:\([^()]*\))?")


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a database defines.

    Attributes:
        tables: engine and definition of every table and view, by name.
        level: version and SHA-256 of the recorded migrations.
        functions: names of the SQL functions that users defined.
        policies: names of the row policies that our roles do not explain; None if they could not be read.
    """

    database: str
    tables: Mapping[str, tuple[str, str]]
    level: Sequence[tuple[int, str]]
    functions: Sequence[str]
    policies: Sequence[str] | None

    def unreadable(self) -> list[Problem]:
        """Return a problem for each table of evidence that is not a table: a view can show each reader other rows."""
        return [
            Problem(self.database, None, "definition", f"{name} is not a table of the MergeTree family")
            for name in EVIDENCE_TABLES
            if not re.fullmatch(r"(Replicated|Shared)?MergeTree", self.tables.get(name, ("", ""))[0])
        ]


def read_definitions(client: Client, *, server: bool) -> Definitions:
    """Read the definitions of a store. Only a server has row policies."""
    tables = {name: (engine, text) for name, engine, text in client.query(TABLES).result_rows}
    level: list[tuple[int, str]] = []
    if tables.get("migrations", ("",))[0].endswith("MergeTree"):
        # A migration whose answer was lost may be recorded twice.
        rows = client.query("SELECT DISTINCT version, sha256 FROM migrations ORDER BY version").result_rows
        level = [(int(version), str(sha256)) for version, sha256 in rows]
    policies: Sequence[str] | None = ()
    if server:
        try:
            policies = [str(row[0]) for row in client.query(POLICIES).result_rows if not _is_own(row[1:])]
        except ClickHouseError:
            policies = None
    functions = [row[0] for row in client.query(FUNCTIONS).result_rows]
    database = str(client.query("SELECT currentDatabase()").result_rows[0][0])
    return Definitions(database, tables, level, functions, policies)


def check_definitions(found: Definitions) -> Iterator[Problem | str]:
    """Yield a problem for each definition that differs, and a sentence for each that could not be checked."""
    for name in found.functions:
        yield Problem(found.database, None, "definition", f"the SQL function {name} is not ours")
    for name in found.policies or ():
        yield Problem(found.database, None, "definition", f"the row policy {name} hides rows from some readers")
    if found.policies is None:
        yield "the row policies of the store: grant the verifier SHOW ROW POLICIES"
    ours = [(migration.version, migration.sha256) for migration in available()]
    if not found.level or list(found.level) != ours[: len(found.level)]:
        yield "the definitions of the store: its recorded migrations are not those of this version"
        return
    try:
        expected = reference_tables(found.database, len(found.level))
        yield from _differences(found, expected)
    except ReferenceStoreError as error:
        yield f"the definitions of the store: {error}"


def _differences(found: Definitions, expected: Mapping[str, tuple[str, str]]) -> Iterator[Problem]:
    different = []
    for name in sorted(found.tables.keys() | expected.keys()):
        if name not in found.tables:
            yield Problem(found.database, None, "definition", f"{expected[name][0]} {name} is missing")
        elif name not in expected:
            yield Problem(found.database, None, "definition", f"{found.tables[name][0]} {name} is not ours")
        elif _plain(found.tables[name]) != _plain(expected[name]):
            different.append(name)
    texts = [_plain(tables[name])[1] for name in different for tables in (found.tables, expected)]
    again = normalized(found.database, texts) if texts else []
    for at, name in enumerate(different):
        engines = {_plain(tables[name])[0] for tables in (found.tables, expected)}
        if len(engines) > 1 or again[2 * at] != again[2 * at + 1]:
            message = f"{name} ({found.tables[name][0]}) has another definition than the migrations give it"
            yield Problem(found.database, None, "definition", message)


def _is_own(policy: Sequence[Any]) -> bool:
    """Return whether a row policy only hides the other tenants from the role of a tenant (``init --tenant``)."""
    database, table, condition, restrictive, everybody, to = policy
    roles = ServerRoles(str(database))
    return roles.is_own_policy(table, condition, restrictive=bool(restrictive), everybody=bool(everybody), to=to)


def _plain(definition: tuple[str, str]) -> tuple[str, str]:
    """Return a definition without the engine's family, and without the rights with which a view reads."""
    engine, text = definition
    if engine == "View":
        return engine, _SECURITY.sub(")", text, count=1)
    if not engine.endswith("MergeTree"):
        return definition
    return re.sub("^(Replicated|Shared)", "", engine), _FAMILY.sub(r"ENGINE = \1", text, count=1)
