"""``grantledger settings``."""

from __future__ import annotations

from ..runtime.settings import Settings
from .output import Output, text_column


def command(settings: Settings, output: Output) -> None:
    """Print every setting with its value and meaning; secrets are not shown. docs/settings.md has the defaults.

    Exit codes: 0 printed; 2 a setting is wrong.
    """
    rows = [
        {
            "setting": name,
            "variable": f"GRANTLEDGER_{name.upper()}",
            "value": settings.shown(name),
            "meaning": each.description,
        }
        for name, each in Settings.model_fields.items()
    ]
    columns = [text_column("setting", "variable"), text_column("value", "value"), text_column("meaning", "meaning")]
    output.rows(rows, identity="variable", show=columns)
