"""``grantledger adapters``: what each adapter covers, and what its tool does not say."""

from __future__ import annotations

from rich.console import Console

from ..base.text import printable
from ..producers.adapters import ADAPTERS
from ..producers.adapters.mapping.adapter import MappingAdapter
from ..runtime.settings import Settings
from .output import Output


def command(settings: Settings, output: Output) -> None:
    """List the tools whose records can be read: what becomes an event, what is skipped, and what the tool does not say.

    Any other tool needs a mapping file: docs/mapping.md.

    Exit codes: 0 listed.
    """
    rows = [
        {
            "tool": tool,
            "mapping": "file" if issubclass(adapter, MappingAdapter) else "built in",
            "version": adapter.VERSION,
            "covers": list(adapter.COVERS),
            "does_not_say": list(adapter.DOES_NOT_SAY),
            "skips": dict(adapter.SKIP_REASONS),
        }
        for tool, adapter in sorted(ADAPTERS.items())
    ]

    def show(console: Console) -> None:
        for row in rows:
            kind = "a mapping file" if row["mapping"] == "file" else "built in"
            console.print(printable(f"{row['tool']} ({kind}, version {row['version']})"), markup=False, style="bold")
            for title, lines in (("covers", row["covers"]), ("does not say", row["does_not_say"])):
                for number, line in enumerate(lines):
                    console.print(f"  {title if not number else '':<13}{printable(line)}", markup=False)

    output.rows(rows, identity="tool", show=show)
