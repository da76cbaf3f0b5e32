"""The argument of the commands that check a file: the same for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path | None, typer.Argument(metavar="FILE", help="TOML file. Default: the one in the settings.")]
