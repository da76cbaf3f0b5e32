"""Secrets of configuration files: in an environment variable or in another file, never in the file itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from .toml import ConfigError


class SecretReference(BaseModel):
    """The name of an environment variable, or a file with mode 0600 or stricter whose first line is the secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str = ""
    file: Path | None = None

    @model_validator(mode="after")
    def _one_place(self) -> SecretReference:
        if bool(self.env) == (self.file is not None):
            raise ValueError("give either env, the name of an environment variable, or file")
        return self

    def read(self, key: str) -> str:
        """Return the secret.

        Args:
            key: the configuration key, for the error.

        Raises:
            ConfigError: the secret is missing, empty or not ASCII, or others can access the file.
        """
        if self.file is None:
            value = os.environ.get(self.env, "").strip()
            if not value:
                raise ConfigError(f"{key}: the environment variable {self.env} is not set")
            return value
        try:
            with self.file.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                line = file.readline(4096)
        except OSError as error:
            raise ConfigError(f"{key}: {self.file} cannot be read: {error.strerror}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"{key}: others can access {self.file}; run: chmod 600 {self.file}")
        value = line.decode("ascii", "ignore").strip() if line.isascii() else ""
        if not value:
            raise ConfigError(f"{key}: the first line of {self.file} is not a secret in ASCII")
        return value
