"""The enforcement policy: a TOML file that defines where and how each access is removed.

It contains no secrets: passwords and signing secrets are in environment variables or files that it names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..base.secret import SecretReference
from ..schemas.access_key import SourceName
from ..webhooks.endpoint import SignedEndpoint, Url, is_exposed
from .contract import RevokeCommand
from .running_grants import GrantEvent, access_of


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebhookTarget(SignedEndpoint):
    """HTTP POST to a receiver of yours. ``read_back``: the address that answers whether the access exists."""

    plugin: Literal["webhook"]
    read_back: Url | Literal[""] = ""
    secret: SecretReference

    @model_validator(mode="after")
    def _private_lookup(self) -> WebhookTarget:
        if self.read_back and is_exposed(self.read_back):
            raise ValueError("read_back: http is for loopback addresses only; use https")
        if (self.ca_file or self.cert_file) and urlsplit(self.read_back).scheme == "http":
            raise ValueError("read_back: ca_file and cert_file need an https url")
        return self


class ExecTarget(_Part):
    """A program on this machine."""

    plugin: Literal["exec"]
    command: tuple[str, ...] = Field(min_length=1)
    read_back: tuple[str, ...] = ()
    timeout_seconds: float = Field(30.0, gt=0, le=600)
    environment: dict[str, str] = Field(default_factory=dict)
    pass_environment: tuple[str, ...] = ()

    @field_validator("command", "read_back")
    @classmethod
    def _absolute(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if command and not Path(command[0]).is_absolute():
            raise ValueError("must begin with the absolute path of a program")
        if any("\0" in argument for argument in command):
            raise ValueError("contains a NUL character")
        return command

    @field_validator("environment")
    @classmethod
    def _valid_environment(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError("contains a name or a value that is not possible in an environment")
        return environment


class Privileges(_Part):
    """Privileges on one object. ``name`` is a list of its parts: ``["public", "orders"]``, or ``["orders"]``."""

    privileges: tuple[
        Literal[
            "SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "USAGE", "CREATE", "CONNECT"
        ],
        ...,
    ] = Field(min_length=1)
    on: Literal["table", "schema", "database"]
    name: tuple[str, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> Privileges:
        if len(self.name) != (2 if self.on == "table" else 1):
            raise ValueError(f"name of a {self.on} must be {'[schema, table]' if self.on == 'table' else '[name]'}")
        allowed = {
            "table": {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"},
            "schema": {"USAGE", "CREATE"},
            "database": {"CONNECT", "CREATE"},
        }[self.on]
        if wrong := set(self.privileges) - allowed:
            raise ValueError(f"a {self.on} has no privilege {', '.join(sorted(wrong))}")
        return self


class PostgresqlAction(_Part):
    """An entitlement in this database. The first action whose ``entitlement`` (shell pattern) matches applies."""

    entitlement: str
    roles: tuple[str, ...] = ()
    privileges: tuple[Privileges, ...] = ()
    nologin: bool = False
    terminate: bool = True
    cascade: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> PostgresqlAction:
        if not (self.roles or self.privileges or self.nologin):
            raise ValueError("removes nothing: give roles, privileges or nologin")
        return self

    def affects(self, other: PostgresqlAction) -> bool:
        """Whether this action removes something that the other entitlement includes."""
        return self.nologin or bool(
            set(self.roles) & set(other.roles)
            or {(one.on, one.name, name) for one in self.privileges for name in one.privileges}
            & {(one.on, one.name, name) for one in other.privileges for name in one.privileges}
        )


class PostgresqlTarget(_Part):
    """A PostgreSQL server, 14 or later."""

    plugin: Literal["postgresql"]
    conninfo: str
    password: SecretReference | None = None
    timeout_seconds: float = Field(10.0, ge=1, le=120)
    strip_domain: str = ""
    subjects: dict[str, str] = Field(default_factory=dict)
    protected: tuple[str, ...] = ()
    actions: tuple[PostgresqlAction, ...] = Field(min_length=1)

    def action_for(self, entitlement: str) -> PostgresqlAction | None:
        """Return the action for an entitlement, None if the policy has none."""
        return next((action for action in self.actions if fnmatchcase(entitlement, action.entitlement)), None)

    def role_of(self, subject: str) -> str:
        """Return the database role of a subject: as mapped, else without the domain, else unchanged."""
        if subject in self.subjects:
            return self.subjects[subject]
        suffix = f"@{self.strip_domain}"
        return subject.removesuffix(suffix) if self.strip_domain else subject


AnyTarget = Annotated[WebhookTarget | ExecTarget | PostgresqlTarget, Field(discriminator="plugin")]


class Route(_Part):
    """Assigns commands to a target. The criteria are shell patterns; the first route that matches applies.

    ``sources``: patterns of ``system/instance``, or of systems. The route applies to grants of these sources; without
    the list, to grants that a registered source has signed.
    """

    target: str
    sources: tuple[str, ...] = ()
    resource_kind: str = "*"
    resource_id: str = "*"
    environment: str = "*"
    entitlement: str = "*"

    def admits(self, source: SourceName, *, signed: bool) -> bool:
        """Whether grants of a source take this route, signed by it as a registered source or not."""
        if not self.sources:
            return signed
        # Part by part: a system may have any name, such as ``vault/x``.
        patterns = (pattern.partition("/") for pattern in self.sources)
        return any(
            fnmatchcase(source[0], system) and fnmatchcase(source[1], instance if slash else "*")
            for system, slash, instance in patterns
        )

    def matches(self, kind: str, resource: str, environment: str, entitlement: str) -> bool:
        """Whether an access takes this route. A resource without an environment has the empty one."""
        pairs = (
            (kind, self.resource_kind),
            (resource, self.resource_id),
            (environment, self.environment),
            (entitlement, self.entitlement),
        )
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)


class EnforcementPolicy(_Part):
    """The whole file.

    ``max_age_seconds``: a command older than this is not started. ``history_after_seconds``: a grant whose first record
    arrived so long after the deadline is historical, and not revoked.
    """

    max_age_seconds: float = Field(86_400.0, gt=0)
    history_after_seconds: float = Field(3_600.0, ge=0)
    backoff_seconds: float = Field(2.0, gt=0)
    backoff_cap_seconds: float = Field(300.0, gt=0)
    targets: dict[str, AnyTarget] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_targets(self) -> EnforcementPolicy:
        for number, route in enumerate(self.routes):
            if route.target not in self.targets:
                raise ValueError(f"routes[{number}].target names {route.target!r}, which is not a target")
        return self

    def admits(self, source: SourceName, *, signed: bool) -> bool:
        """Whether any route is for grants of a source."""
        return any(route.admits(source, signed=signed) for route in self.routes)

    def route(self, command: RevokeCommand, *, signed: bool) -> Route | None:
        """Return the route of a command, None if none matches. ``signed``: a registered source signed the grant."""
        resource = command.resource
        access = (resource.kind, resource.id, resource.environment or "", command.entitlement)
        return self._route(command.key.issuer, access, signed=signed)

    def _route(self, source: SourceName, access: tuple[str, str, str, str], *, signed: bool) -> Route | None:
        fitting = (route for route in self.routes if route.admits(source, signed=signed) and route.matches(*access))
        return next(fitting, None)

    def shared(self, command: RevokeCommand, route: Route, other: GrantEvent) -> bool:
        """Whether carrying out a command by its route would also remove the access that another grant gives.

        Different accesses may be one thing in the database: ``read*`` one role, ``orders*`` one server. The other
        grant counts only if its source is one that takes a route to the same target: a grant that anyone else claims
        must not keep the access.
        """
        config, access = self.targets[route.target], other.access
        if access == access_of(command):
            return route.admits(other.source, signed=other.signed)
        if not isinstance(config, PostgresqlTarget) or config.role_of(access.subject) != config.role_of(
            command.subject.id
        ):
            return False
        criteria = (access.resource_kind, access.resource, other.environment, access.entitlement)
        others_route = self._route(other.source, criteria, signed=other.signed)
        if others_route is None or others_route.target != route.target:
            return False
        action, others = config.action_for(command.entitlement), config.action_for(access.entitlement)
        return action is not None and others is not None and action.affects(others)
