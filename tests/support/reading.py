"""Read tables of the store as our own commands do, through the endpoint of its owner. Analysts read views only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from grantledger.runtime.settings import Settings, load_settings
from grantledger.runtime.store_access import open_store


def read_rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    """Return the rows as ClickHouse writes them in JSON."""
    with open_store(settings, read_only=True) as client:
        return [json.loads(line) for line in client.raw_query(sql, fmt="JSONEachRow").splitlines()]


def read_rows_with(environment: Mapping[str, str], sql: str, data_dir: Path | None = None) -> list[dict[str, Any]]:
    """The same for a process with this environment."""
    with patch.dict(os.environ, environment, clear=True):
        settings = load_settings(data_dir)
    return read_rows(settings, sql)
