"""Commands about a grant, with the options that distinguish it from others with the same id."""

from __future__ import annotations

import shlex
from typing import Literal

from .output import Row


def grant_command(name: Literal["show", "revoke"], row: Row) -> str:
    """Return a command about the grant of a row, for a shell."""
    return shlex.join(["grantledger", "grants", name, row["grant_id"], *options_of(row)])


def options_of(row: Row) -> list[str]:
    """Return the options for the tenant and the source that issued the grant."""
    tool = "/".join(filter(None, (row["source_system"], row["source_instance"])))
    tenant = ["--tenant", row["tenant"]] if row["tenant"] != "default" else []
    return [*(["--source", tool] if tool else []), *tenant]
