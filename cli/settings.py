"""``grantledger settings``: print every setting."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from ..runtime.settings import Settings
from .sending import settings_of


def command(context: typer.Context) -> None:
    """Print every setting with its meaning and its present value; secrets are not shown."""
    settings = settings_of(context)
    table = Table("setting", "value", "meaning", show_lines=False)
    for name, field in Settings.model_fields.items():
        table.add_row(f"GRANTLEDGER_{name.upper()}", settings.shown(name), field.description)
    Console().print(table)
