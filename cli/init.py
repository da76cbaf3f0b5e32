"""``grantledger init``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..base.errors import UsageError
from ..base.user import user_name
from ..runtime.initialise import initialise
from ..runtime.keys import load_log_keys
from ..runtime.settings import Settings
from .keys import print_verifier_keys
from .output import Output, text_column
from .person import PersonOption

RolesOption = Annotated[
    bool,
    typer.Option(
        "--clickhouse-roles",
        help="Only make the tables and roles on your ClickHouse server, or bring them up to date. Kafka is not used.",
    ),
]
TenantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant", metavar="NAME", help="With --clickhouse-roles: also a role that sees this tenant only. Repeatable."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="With --clickhouse-roles: print the SQL, and connect to nothing.")
]


def command(
    settings: Settings,
    output: Output,
    *,
    name: PersonOption = "",
    clickhouse_roles: RolesOption = False,
    tenant: TenantOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Create a new ledger on your own Kafka cluster: its topics and its key pair. Run it once per deployment.

    It fails if a ledger or a key exists. It prints the verifier keys: hand them to your auditors over a channel that
    the operators of the ledger do not control. Back up the private key: the ledger cannot continue without it.

    With --clickhouse-roles, it makes the database, the tables, the views and the roles on the server of clickhouse_url,
    as the administrator in clickhouse_user, and nothing else. Run it before the store starts, and after each upgrade
    (docs/clickhouse-server.md).

    Exit codes: 0 created; 1 Kafka or ClickHouse does not answer; 2 a ledger or a key exists, or a setting is wrong.
    """
    if clickhouse_roles:
        _make_roles(settings, output, tenant or [], dry_run=dry_run)
        return
    if tenant or dry_run:
        raise UsageError("--tenant and --dry-run belong to --clickhouse-roles")
    settings.cluster().check_answers()
    created = initialise(settings, name.strip() or user_name())
    print_verifier_keys(settings, output, load_log_keys(settings))
    output.note(f"created {created} topics and the private key {settings.private_key_path}: back it up now")
    output.note("next: grantledger run seal, and the other processes (docs/operations.md)")


def _make_roles(settings: Settings, output: Output, tenants: list[str], *, dry_run: bool) -> None:
    from ..sinks.server_roles import check_tenants, identifier, script

    check_tenants(tenants)
    if dry_run:
        for statement in script(settings.clickhouse_database, tenants):
            typer.echo(f"{statement};")
        return
    from ..runtime.clickhouse_roles import make_roles

    rows = [
        {"role": role.name, "for": role.purpose, "grant": f"GRANT {identifier(role.name)} TO …"}
        for role in make_roles(settings, tenants)
    ]
    columns = [text_column("role", "role"), text_column("for", "for"), text_column("give it to a user", "grant")]
    output.rows(rows, identity="role", show=columns)
    output.note("next: CREATE USER … for each party, with one of these roles (docs/clickhouse-server.md)")
