"""The option ``--mapping`` of the commands that read a tool's records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MappingOption = Annotated[
    Path | None, typer.Option("--mapping", dir_okay=False, help="Mapping file for TOOL: docs/mapping.md.")
]
