"""A store of the verifier's own, in a temporary folder: the definitions that our migrations make.

It runs in a separate process, because each process can open only one embedded store. It reads one JSON object from
standard input: ``database``, ``level`` (how many migrations), ``texts`` (definitions to normalize). It writes
``tables`` (engine and definition by name) and ``texts``, as this engine formats them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..sinks.clickhouse import StoreAddress, connect
from ..sinks.migrate import migrate

TABLES = "SELECT name, engine, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name"
SECONDS = 120.0


class ReferenceStoreError(Exception):
    """There are no definitions to compare with; the message contains the reason."""


@lru_cache
def reference_tables(database: str, level: int) -> dict[str, tuple[str, str]]:
    """Return engine and definition of every table and view after the first ``level`` migrations."""
    return {name: (engine, text) for name, engine, text in _ask(database, level, ())["tables"]}


def normalized(database: str, texts: Sequence[str]) -> list[str]:
    """Return definitions as the verifier's own engine formats them: versions of ClickHouse differ."""
    found: list[str] = _ask(database, 0, texts)["texts"]
    return found


def _ask(database: str, level: int, texts: Sequence[str]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name],
            input=json.dumps({"database": database, "level": level, "texts": list(texts)}),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode == 0:
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    raise ReferenceStoreError(f"the verifier's own engine did not start: {reason}")


def main() -> None:
    """Answer one request."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine may print
    request = json.loads(sys.stdin.read())
    with tempfile.TemporaryDirectory(prefix="grantledger-reference-") as folder:
        address = StoreAddress(Path(folder) / "store", database=request["database"])
        with connect(address) as client:
            if request["level"]:
                migrate(client, request["level"])
            tables = client.query(TABLES).result_rows
            format_one = "SELECT ifNull(formatQuerySingleLineOrNull({text:String}), {text:String})"
            texts = [client.query(format_one, parameters={"text": text}).result_rows[0][0] for text in request["texts"]]
        json.dump({"tables": tables, "texts": texts}, answers)
        answers.close()


if __name__ == "__main__":
    main()
