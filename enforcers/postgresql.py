"""Plug-in ``postgresql``: removes memberships, privileges and logins, ends sessions, and reads all of it back.

Reads ``pg_auth_members``, ``pg_roles`` and ``pg_stat_activity`` (PostgreSQL documentation, chapters "System Catalogs"
and "Monitoring"). Every name goes into a statement through ``psycopg.sql``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..base.toml import ConfigError
from .contract import Attempt, AttemptStatus, Key, Observation, Presence, RevokeCommand
from .enforcement_policy import PostgresqlAction, PostgresqlTarget, Privileges

TRANSIENT = ("08", "40", "53", "55", "57")
"""Classes of SQLSTATE worth a retry: connection, rollback, resources, locks, operator intervention."""
GRANTORS_SINCE = 160_000
"""From this version on, a membership has one row per grantor, and a plain REVOKE removes only our own."""
REMEMBERED = 10_000
OVERALL = 4
"""Limit of a whole connection, as a multiple of the limit of one statement."""
COLUMNWISE = frozenset({"SELECT", "INSERT", "UPDATE", "REFERENCES"})
"""Table privileges that can also be granted on single columns."""

Connection = psycopg.Connection[tuple[Any, ...]]


class _RefusedError(Exception):
    """The policy or the database does not permit this. A person must look into it."""


@dataclass(frozen=True, slots=True)
class _Plan:
    role: str
    oid: int
    action: PostgresqlAction


class PostgresqlPlugin:
    """Removes access in one database server, with the role in the policy's ``conninfo``. ``key``: of the target."""

    kind = "postgresql"

    def __init__(self, target: PostgresqlTarget, key: str = "targets") -> None:
        self._config = target
        limit = int(target.timeout_seconds * 1000)
        try:
            given = conninfo_to_dict(target.conninfo)
        except psycopg.ProgrammingError:
            raise ConfigError(f"{key}.conninfo: is not a PostgreSQL connection string") from None
        for secret in ("password", "sslpassword"):
            if secret in given:
                raise ConfigError(f"{key}.conninfo: contains a {secret}, which does not belong in this file")
        self._conninfo = make_conninfo(
            target.conninfo,
            **({"password": target.password.read(f"{key}.password")} if target.password else {}),
            application_name="grantledger-enforcer",
            connect_timeout=max(2, int(target.timeout_seconds)),
            tcp_user_timeout=limit,
            keepalives_idle=5,
            keepalives_interval=5,
            keepalives_count=2,
            options=f"-c statement_timeout={limit} -c lock_timeout={limit} -c search_path=pg_catalog",
        )
        self._ended: dict[Key, datetime] = {}

    def revoke(self, command: RevokeCommand) -> Attempt:
        """Remove everything in the policy's action in one transaction, then end the role's sessions."""
        try:
            with self._connected() as connection:
                plan = self._plan(connection, command)
                with connection.transaction():
                    self._remove(connection, plan)
                ended = self._terminate(connection, plan, command.key) if plan.action.terminate else 0
        except _RefusedError as error:
            return Attempt(AttemptStatus.failed, str(error))
        except psycopg.Error as error:
            return Attempt(_status_of(error), _message(error))
        return Attempt(AttemptStatus.accepted, f"removed from role {plan.role}; {ended} sessions ended")

    def read_back(self, command: RevokeCommand) -> Observation:
        """Check the memberships (also through other roles), the privileges, the login and the sessions."""
        try:
            with self._connected() as connection:
                plan = self._plan(connection, command)
                left = [
                    *self._memberships(connection, plan),
                    *self._privileges(connection, plan),
                    *self._login(connection, plan),
                    *self._sessions(connection, plan, command.key),
                ]
        except _RefusedError as error:
            return Observation(Presence.unknown, str(error))
        except psycopg.Error as error:
            return Observation(Presence.unknown, _message(error))
        if left:
            return Observation(Presence.present, f"role {plan.role} still has {', '.join(left)}")
        return Observation(Presence.absent, f"role {plan.role} has nothing left")

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with (
            psycopg.connect(self._conninfo, autocommit=True) as connection,
            socket.socket(fileno=os.dup(connection.fileno())) as ours,
        ):
            # The server enforces statement_timeout. If the server itself hangs, this timer closes the socket.
            watchdog = threading.Timer(OVERALL * self._config.timeout_seconds, _shut, [ours])
            watchdog.daemon = True
            watchdog.start()
            try:
                yield connection
            finally:
                watchdog.cancel()

    def _plan(self, connection: Connection, command: RevokeCommand) -> _Plan:
        """Return the role and the action.

        A missing role does not prove that the access is gone: a wrong mapping would look the same.
        """
        action = self._config.action_for(command.entitlement)
        if action is None:
            raise _RefusedError("the policy has no action for this entitlement")
        role = self._config.role_of(command.subject.id)
        if "\0" in role:  # the client reports this like a lost connection
            raise _RefusedError("the name of the role contains a NUL character")
        found = _row(
            connection,
            "SELECT oid, rolsuper, rolname = session_user FROM pg_roles WHERE rolname = %s",
            (role,),
        )
        if found is None:
            raise _RefusedError(f"role {role} does not exist")
        oid, superuser, ourselves = found
        if superuser or ourselves or role.startswith("pg_") or role in self._config.protected:
            raise _RefusedError(f"role {role} is a superuser, the enforcer's own role, or protected: not changed")
        there = {name for (name,) in _rows(connection, "SELECT rolname FROM pg_roles", ())} if action.roles else set()
        if missing := sorted(set(action.roles) - there):
            raise _RefusedError(f"roles in the policy do not exist: {', '.join(missing)}")
        return _Plan(role, oid, action)

    def _remove(self, connection: Connection, plan: _Plan) -> None:
        tail = sql.SQL(" CASCADE") if plan.action.cascade else sql.SQL(" RESTRICT")
        member = sql.Identifier(plan.role)
        with_grantor = connection.info.server_version >= GRANTORS_SINCE
        rows = _rows(
            connection,
            "SELECT r.rolname, g.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
            " LEFT JOIN pg_roles g ON g.oid = m.grantor WHERE m.member = %s AND r.rolname = ANY(%s)",
            (plan.oid, list(plan.action.roles)),
        )
        for role, grantor in rows:
            by = sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor)) if with_grantor and grantor else sql.SQL("")
            connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(role), member) + by + tail)
        for privileges in plan.action.privileges:
            names = sql.SQL(", ").join([sql.SQL(name) for name in privileges.privileges])
            kind = {"table": sql.SQL("TABLE"), "schema": sql.SQL("SCHEMA"), "database": sql.SQL("DATABASE")}
            connection.execute(
                sql.SQL("REVOKE {} ON {} {} FROM {}").format(
                    names, kind[privileges.on], sql.Identifier(*privileges.name), member
                )
                + tail
            )
        if plan.action.nologin:
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(member))

    def _terminate(self, connection: Connection, plan: _Plan, key: Key) -> int:
        """End the role's sessions: a session keeps a role that it has SET after the membership is gone.

        Sessions that start later do not have the access, so reading back counts only older ones.
        """
        now = _row(connection, "SELECT clock_timestamp()", ())
        whose = "FROM pg_stat_activity WHERE usesysid = %s AND pid <> pg_backend_pid()"
        signalled = _rows(connection, f"SELECT pg_terminate_backend(pid) {whose}", (plan.oid,))
        _rows(connection, f"SELECT pg_terminate_backend(pid, 2000) {whose}", (plan.oid,))
        if now is not None:
            while len(self._ended) >= REMEMBERED:
                del self._ended[next(iter(self._ended))]
            self._ended[key] = now[0]
        return len(signalled)

    def _memberships(self, connection: Connection, plan: _Plan) -> list[str]:
        rows = _rows(
            connection,
            "WITH RECURSIVE above(oid) AS (SELECT roleid FROM pg_auth_members WHERE member = %s UNION"
            " SELECT m.roleid FROM pg_auth_members m JOIN above ON m.member = above.oid)"
            " SELECT rolname FROM pg_roles JOIN above USING (oid) WHERE rolname = ANY(%s) ORDER BY rolname",
            (plan.oid, list(plan.action.roles)),
        )
        return [f"role {name}" for (name,) in rows]

    def _privileges(self, connection: Connection, plan: _Plan) -> list[str]:
        """Return the privileges of the role and of roles that it is a member of and may SET."""
        left = []
        for privileges in plan.action.privileges:
            oid = _object(connection, privileges)
            for name in privileges.privileges:
                columnwise = privileges.on == "table" and name in COLUMNWISE
                function = "has_any_column_privilege" if columnwise else f"has_{privileges.on}_privilege"
                query = sql.SQL(
                    "WITH RECURSIVE above(oid) AS (SELECT %s::oid UNION"
                    " SELECT m.roleid FROM pg_auth_members m JOIN above ON m.member = above.oid)"
                    " SELECT rolname FROM pg_roles JOIN above USING (oid) WHERE {}(oid, %s::oid, %s)"
                    " ORDER BY oid <> %s, rolname LIMIT 1"
                ).format(sql.Identifier(function))
                for (holder,) in connection.execute(query, (plan.oid, oid, name, plan.oid)).fetchall():
                    through = "" if holder == plan.role else f" through role {holder}"
                    left.append(f"{name} on {'.'.join(privileges.name)}{through}")
        return left

    def _login(self, connection: Connection, plan: _Plan) -> list[str]:
        if not plan.action.nologin:
            return []
        found = _row(connection, "SELECT rolcanlogin FROM pg_roles WHERE oid = %s", (plan.oid,))
        return ["the login"] if found is None or found[0] else []

    def _sessions(self, connection: Connection, plan: _Plan, key: Key) -> list[str]:
        """Return the sessions that may still have the access: all of them, unless we ended the older ones."""
        if not plan.action.terminate:
            return []
        since = None if plan.action.nologin else self._ended.get(key)
        found = _row(
            connection,
            "SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s AND pid <> pg_backend_pid()"
            # NULL if our role may not see the start of other sessions: then it counts.
            " AND coalesce(backend_start <= %s::timestamptz, true)",
            (plan.oid, since),
        )
        return [f"{found[0]} sessions"] if found is not None and found[0] else []


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # it was closed meanwhile
        sock.shutdown(socket.SHUT_RDWR)


def _object(connection: Connection, privileges: Privileges) -> int:
    query = {
        "table": "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        "schema": "SELECT oid FROM pg_namespace WHERE nspname = %s",
        "database": "SELECT oid FROM pg_database WHERE datname = %s",
    }[privileges.on]
    found = _row(connection, query, privileges.name)
    if found is None:
        raise _RefusedError(f"the {privileges.on} in the policy does not exist: {'.'.join(privileges.name)}")
    oid: int = found[0]
    return oid


def _rows(connection: Connection, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), values).fetchall()


def _row(connection: Connection, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return connection.execute(query.encode(), values).fetchone()


def _status_of(error: psycopg.Error) -> AttemptStatus:
    """Return the status of an error. A failed connection has no SQLSTATE."""
    transient = error.sqlstate is None or error.sqlstate[:2] in TRANSIENT
    return AttemptStatus.retry if transient else AttemptStatus.failed


def _message(error: psycopg.Error) -> str:
    """Return the first line of the server's message, without the statement; without a server, the client's message."""
    if error.sqlstate is None:
        return f"no connection to the database: {' '.join(str(error).split())}"
    return f"{error.sqlstate}: {error.diag.message_primary or type(error).__name__}"
