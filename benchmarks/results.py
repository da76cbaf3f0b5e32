"""Where benchmarks write what they measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]


def save(result: Any, name: str, console: Console) -> None:
    """Write a result as JSON to a file in ``build``, and print where."""
    target = ROOT / "build" / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"written to {target.relative_to(ROOT)}")
