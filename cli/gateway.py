"""``grantledger gateway``: the tokens of the sources that send to the gateway."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ..producers.gateway.config import load_gateway_config
from ..producers.gateway.credentials import new_token, token_digest
from ..runtime.settings import Settings, SettingsError
from .errors import fail
from .output import echo

SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a [[source]] in the gateway's file.")]


def token(settings: Settings, source: SourceArgument) -> None:
    """Make a token for a source: print it once, and add its hash to the gateway's file.

    Older tokens of the source stay valid until you delete their [[token]] tables. A running gateway reads the file
    again on SIGHUP.

    Exit codes: 0 printed; 2 the file is missing or wrong, or has no such source.
    """
    path = settings.gateway_config
    if path is None:
        raise SettingsError("there is no configuration: set GRANTLEDGER_GATEWAY_CONFIG to the gateway's TOML file")
    known = [one.name for one in load_gateway_config(path).source]
    if source not in known:
        fail(f"{path} has no source {source!r}; it has {', '.join(known)}")
    made = new_token()
    created = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    _append(path, f'\n[[token]]\nsource = "{source}"\nsha256 = "{token_digest(made)}"\ncreated = {created}\n')
    load_gateway_config(path)
    echo(made)


def _append(path: Path, text: str) -> None:
    """Append to a file, as a whole or not at all. Its owner and mode stay."""
    before = path.read_text("utf-8")
    with path.open("r+", encoding="utf-8") as file:
        file.seek(0, os.SEEK_END)
        file.write(text if before.endswith("\n") else f"\n{text}")
        file.flush()
        os.fsync(file.fileno())
