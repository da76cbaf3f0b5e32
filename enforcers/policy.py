"""The enforcer's policy: a TOML file that says which access is taken away where, and how.

It holds no secret: passwords and signing secrets are named by the environment variable or the file they are in.
"""

from __future__ import annotations

import os
import stat
import tomllib
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .contract import Target
from .held import Holder, access_of


class PolicyError(Exception):
    """The policy is wrong, or a secret it names is not there; the message names the place."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Part):
    """Where a secret is: the name of an environment variable, or a file (its first line). Exactly one of them."""

    env: str = ""
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if bool(self.env) == (self.file is not None):
            raise ValueError("name either env or file")
        return self

    def read(self) -> str:
        """Return the secret.

        Raises:
            PolicyError: it is not there, or empty.
        """
        if self.file is None:
            found, place = os.environ.get(self.env, ""), f"environment variable {self.env}"
        else:
            place = f"file {self.file}"
            try:
                found = _read_ours(self.file).partition("\n")[0]
            except (OSError, UnicodeDecodeError) as error:
                raise PolicyError(f"the secret in {place} cannot be read: {type(error).__name__}") from None
        if not found.strip():
            raise PolicyError(f"the secret in {place} is missing or empty")
        return found.strip()


def _read_ours(path: Path) -> str:
    """Return a file's text; refuse a file that anybody on this machine may write, for it decides what we do."""
    with path.open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
            raise PolicyError(f"{path} can be written by everybody: chmod o-w")
        return file.read()


class WebhookTarget(_Part):
    """HTTP POST to a receiver of ours. ``read_back``: the address that says whether the access is there."""

    plugin: Literal["webhook"]
    url: str
    read_back: str = ""
    secret: Secret
    timeout_seconds: float = Field(10.0, gt=0, le=120)

    @field_validator("url", "read_back")
    @classmethod
    def _safe(cls, url: str) -> str:
        if any(not "!" <= character <= "~" for character in url):
            raise ValueError("holds a space or another character that must be written as %XX")
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no port
        if parts.username or parts.password:
            raise ValueError("holds a password; the receiver knows us by the signature")
        if not parts.hostname or parts.scheme not in ("https", "http"):
            raise ValueError("must be https://host/path")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("http is for loopback addresses only; use https")
        return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
        if any("\0" in word for word in command):
            raise ValueError("holds a NUL character")
        return command

    @field_validator("environment")
    @classmethod
    def _possible(cls, environment: dict[str, str]) -> dict[str, str]:
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError("has a name or a value that no environment can hold")
        return environment


class Privileges(_Part):
    """Privileges on one object. ``name`` has its parts apart: ``["public", "orders"]``, or ``["orders"]``."""

    privileges: tuple[
        Literal[
            "SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "USAGE", "CREATE", "CONNECT"
        ],
        ...,
    ] = Field(min_length=1)
    on: Literal["table", "schema", "database"]
    name: tuple[str, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode="after")
    def _fits(self) -> Privileges:
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
    """What an entitlement is in this database. The first whose ``entitlement`` (shell pattern) fits is taken."""

    entitlement: str
    roles: tuple[str, ...] = ()
    privileges: tuple[Privileges, ...] = ()
    nologin: bool = False
    terminate: bool = True
    cascade: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> PostgresqlAction:
        if not (self.roles or self.privileges or self.nologin):
            raise ValueError("takes nothing away: give roles, privileges or nologin")
        return self

    def takes_from(self, other: PostgresqlAction) -> bool:
        """Whether it takes away what somebody who holds the other entitlement needs."""
        return self.nologin or bool(
            set(self.roles) & set(other.roles)
            or {(one.on, one.name, word) for one in self.privileges for word in one.privileges}
            & {(one.on, one.name, word) for one in other.privileges for word in one.privileges}
        )


class PostgresqlTarget(_Part):
    """A PostgreSQL server, 14 or later."""

    plugin: Literal["postgresql"]
    conninfo: str
    password: Secret | None = None
    timeout_seconds: float = Field(10.0, ge=1, le=120)
    strip_domain: str = ""
    subjects: dict[str, str] = Field(default_factory=dict)
    protected: tuple[str, ...] = ()
    actions: tuple[PostgresqlAction, ...] = Field(min_length=1)

    def action_for(self, entitlement: str) -> PostgresqlAction | None:
        """Return what the entitlement is here, None where the policy does not say."""
        return next((action for action in self.actions if fnmatchcase(entitlement, action.entitlement)), None)

    def role_of(self, subject: str) -> str:
        """Return the database role of a subject: as mapped, else without the domain, else as it is."""
        if subject in self.subjects:
            return self.subjects[subject]
        suffix = f"@{self.strip_domain}"
        return subject.removesuffix(suffix) if self.strip_domain else subject


AnyTarget = Annotated[WebhookTarget | ExecTarget | PostgresqlTarget, Field(discriminator="plugin")]


class Route(_Part):
    """Which commands go to which target. All four are shell patterns; the first route that fits is taken."""

    target: str
    resource_kind: str = "*"
    resource_id: str = "*"
    environment: str = "*"
    entitlement: str = "*"

    def fits(self, kind: str, resource: str, environment: str, entitlement: str) -> bool:
        """Whether an access goes this way. A resource without environment has the empty one."""
        pairs = (
            (kind, self.resource_kind),
            (resource, self.resource_id),
            (environment, self.environment),
            (entitlement, self.entitlement),
        )
        return all(fnmatchcase(value, pattern) for value, pattern in pairs)


class Policy(_Part):
    """The whole file. ``max_age_seconds``: a command older than that is not begun any more."""

    max_age_seconds: float = Field(86_400.0, gt=0)
    backoff_seconds: float = Field(2.0, gt=0)
    backoff_cap_seconds: float = Field(300.0, gt=0)
    targets: dict[str, AnyTarget] = Field(min_length=1)
    routes: tuple[Route, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Policy:
        for number, route in enumerate(self.routes):
            if route.target not in self.targets:
                raise ValueError(f"routes[{number}].target names {route.target!r}, which is not among the targets")
        return self

    def route(self, target: Target) -> str | None:
        """Return the name of the target that takes a command, None where no route fits."""
        resource = target.resource
        return self._route(resource.kind, resource.id, resource.environment or "", target.entitlement)

    def _route(self, *access: str) -> str | None:
        return next((route.target for route in self.routes if route.fits(*access)), None)

    def shared(self, target: Target, name: str, other: Holder) -> bool:
        """Whether carrying out a command at a target would take another grant's access too.

        Several accesses may be one to the database: ``read*`` one role, ``orders*`` one server.
        """
        config, held = self.targets[name], other.access
        if held == access_of(target):
            return True
        if not isinstance(config, PostgresqlTarget) or (
            config.role_of(held.subject) != config.role_of(target.subject.id)
            or self._route(held.resource_kind, held.resource, other.environment, held.entitlement) != name
        ):
            return False
        action, its = config.action_for(target.entitlement), config.action_for(held.entitlement)
        return action is not None and its is not None and action.takes_from(its)


def load_policy(path: Path) -> Policy:
    """Read the policy.

    Raises:
        PolicyError: the file cannot be read or is wrong; names the place, and shows no value.
    """
    try:
        found: dict[str, Any] = tomllib.loads(_read_ours(path))
        return Policy.model_validate(found)
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, problem['loc'])) or 'policy'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise PolicyError("\n".join(lines)) from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise PolicyError(f"the policy {path} does not parse: {error}") from None
