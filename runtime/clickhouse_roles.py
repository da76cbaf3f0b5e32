"""Makes the database, the tables and the roles of the store on a ClickHouse server, as its administrator."""

from __future__ import annotations

from collections.abc import Sequence

from clickhouse_connect.driver.exceptions import ClickHouseError

from ..base.errors import UsageError
from ..sinks.clickhouse import StoreUnavailableError, connect, explain
from ..sinks.migrate import migrate
from ..sinks.server_roles import Role, ServerRoles, check_tenants
from .settings import Settings
from .store_access import store_address


def make_roles(settings: Settings, tenants: Sequence[str]) -> list[Role]:
    """Make what is missing and bring the roles up to date. Returns the roles.

    Raises:
        UsageError: there is no server in the settings, or a tenant has no name.
        StoreUnavailableError: the server does not answer, or the user may not do this.
    """
    address = store_address(settings)
    if address.embedded:
        raise UsageError(
            "clickhouse_url is not set: the embedded engine has no roles; its SQL endpoint has users (docs/sql.md)"
        )
    check_tenants(tenants)
    roles = ServerRoles(address.database)
    try:
        with connect(address) as client:
            migrate(client)
            for statement in roles.statements(tenants):
                client.command(statement)
    except ClickHouseError as error:
        raise StoreUnavailableError(explain(address, error)) from error
    return roles.all(tenants)
