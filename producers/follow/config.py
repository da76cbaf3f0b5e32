"""What to follow: from the command line, or several tools from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ...base.errors import UsageError
from ...base.toml import load_toml
from ..adapters import adapter_class
from ..redaction.redactor import Level
from .streams import JOURNALD, PIPE


class FollowedTool(BaseModel):
    """One tool, its installation, and where its records are.

    Attributes:
        mapping: the mapping file of a tool, if any.
        redaction: the level of redaction; None: that of the deployment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mapping: Path | None = None
    tool: str
    instance: str | None = Field(None, min_length=1)
    tenant: str = Field("default", min_length=1)
    files: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    source_key: Path | None = None
    redaction: Level | None = None

    @field_validator("tool")
    @classmethod
    def _is_known(cls, tool: str, info: ValidationInfo) -> str:
        try:
            adapter_class(tool, info.data.get("mapping"))
        except UsageError as error:
            raise ValueError(str(error)) from None
        return tool

    @field_validator("files")
    @classmethod
    def _names_units(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        if JOURNALD in files:
            raise ValueError("journald: needs the name of a unit, as in journald:vault.service")
        return files

    @property
    def name(self) -> str:
        """The name of the tool in the positions, in logs and in metrics."""
        names = [self.tool, *([self.instance] if self.instance else [])]
        return "/".join(names if self.tenant == "default" else [*names, f"tenant={self.tenant}"])

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, folders and patterns."""
        return tuple(one for one in self.files if one != PIPE and not one.startswith(JOURNALD))

    @property
    def units(self) -> tuple[str, ...]:
        """The journald units."""
        return tuple(one.removeprefix(JOURNALD) for one in self.files if one.startswith(JOURNALD))


class FollowConfig(BaseModel):
    """A file with several tools, each in a table ``[[follow]]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    follow: Annotated[tuple[FollowedTool, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        names = [one.name for one in self.follow]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{twice[0]} is there twice: list all its files in one [[follow]] table")
        if sum(PIPE in one.files for one in self.follow) > 1:
            raise ValueError("only one tool can read standard input (-)")
        return self


def load_follow_config(path: Path) -> FollowConfig:
    """Read the file. A ConfigError names every problem with its line."""
    return load_toml(path, FollowConfig)
