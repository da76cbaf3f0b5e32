"""Numbered migrations of the store, forward only: a migration never removes evidence.

A migration is a file ``NNNN_name.sql``; each of its statements ends with a semicolon at the end of a line. The
table ``migrations`` records each applied file with its SHA-256, so that a later change of the file is detected.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..base.errors import StoppedError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_RECORD = """
CREATE TABLE IF NOT EXISTS migrations
(
    version UInt32 COMMENT 'Number of the migration',
    name String COMMENT 'Its file',
    sha256 String COMMENT 'Of its text',
    applied_at DateTime64(6, 'UTC') COMMENT 'When'
)
ENGINE = MergeTree ORDER BY version
COMMENT 'Migrations of this store that have been applied'
"""
_HAS_RECORD = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'migrations'"
APPLIED = "SELECT version, name, sha256 FROM migrations"
"""Reads the migrations that a store has."""
_INSERT = "INSERT INTO migrations SELECT {version:UInt32}, {name:String}, {sha256:String}, now64(6, 'UTC')"


class MigrationError(StoppedError):
    """The store's migrations are not those of this version; the message names them."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """The statements, without their semicolons and without comment lines."""
        lines = [line for line in self.text.splitlines() if not line.startswith("--")]
        return [part.strip() for part in re.split(r";[ \t]*$", "\n".join(lines), flags=re.MULTILINE) if part.strip()]


def available() -> list[Migration]:
    """Return the migrations that this version ships, in order."""
    folder = files(__package__) / "migrations"
    found = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return [Migration(int(name[:4]), name, (folder / name).read_text("utf-8")) for name in found]


def pending(client: Client) -> list[Migration]:
    """Return the migrations not applied yet.

    Raises:
        MigrationError: one was applied with other text, or the store is from a later version.
    """
    # Not CREATE IF NOT EXISTS: a server demands the right to create, also where there is nothing to create.
    if not client.query(_HAS_RECORD).result_rows[0][0]:
        client.command(_RECORD)
    return not_in(client.query(APPLIED).result_rows)


def not_in(rows: Iterable[Sequence[Any]]) -> list[Migration]:
    """Return the migrations that are not among those applied, which are the rows of ``APPLIED``. Raises the same."""
    applied = {row[0]: row for row in rows}
    missing = []
    for migration in available():
        row = applied.pop(migration.version, None)
        if row is None:
            missing.append(migration)
        elif row[2] != migration.sha256:
            raise MigrationError(f"migration {migration.name} was applied with other text than this version ships")
    if applied:
        names = ", ".join(str(row[1]) for row in applied.values())
        raise MigrationError(f"the store has migrations that this version does not know ({names}): upgrade grantledger")
    return missing


def repeatable(statement: str) -> str:
    """Return a statement that can be repeated: a crash may come before the migration is recorded."""
    return re.sub(r"^CREATE (TABLE|VIEW|MATERIALIZED VIEW) (?!IF NOT EXISTS)", r"CREATE \1 IF NOT EXISTS ", statement)


def migrate(client: Client, level: int | None = None) -> list[Migration]:
    """Apply the pending migrations, only up to a version if ``level`` is given, and return them."""
    done = [migration for migration in pending(client) if level is None or migration.version <= level]
    for migration in done:
        for statement in migration.statements:
            client.command(repeatable(statement))
        # Not `insert`: that imports pandas, which takes longer than all migrations.
        client.command(_INSERT, {"version": migration.version, "name": migration.name, "sha256": migration.sha256})
    return done


def record_statements() -> Iterator[str]:
    """Yield the statements of all migrations and of their record, for a person who wants to read or run them."""
    yield _RECORD.strip()
    for migration in available():
        yield from map(repeatable, migration.statements)
        yield (
            f"INSERT INTO migrations SELECT {migration.version}, '{migration.name}', '{migration.sha256}', "
            "now64(6, 'UTC')"
        )
