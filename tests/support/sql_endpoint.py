"""A process that owns an embedded ClickHouse and serves it, for the tests of the SQL endpoint.

The engine runs in its own process, as in production: this file run as a script. chDB allows one open data folder per
process, so these tests never open the engine themselves.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import clickhouse_connect

from grantledger.console.address import EndpointCredential, published, read_address
from grantledger.console.endpoint import SqlEndpoint
from grantledger.console.execution import QUERY_LIMITS
from grantledger.console.query_spool import FILE, QuerySpool
from grantledger.console.roles import ANALYST, AUDITOR, READER
from grantledger.sinks import migrate

MIGRATIONS = Path(migrate.__file__).parent / "migrations"
VIEWS = {
    name for file in MIGRATIONS.glob("*.sql") for name in re.findall(r"^CREATE VIEW (\w+)", file.read_text(), re.M)
}
ROWS = 300_000
MOST_STATEMENTS = 1_000_000
# Late enough that the engine, which works some blocks ahead, has written the first block.
LATE_FAILURE = "throwIf(number = 3000000)"
SECRET = "the-content-of-the-secret-file"


class Owner:
    """The owner process: `ask` sends it one operation and returns its answer."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "owner.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(data_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=data_dir,
            )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        assert self._stdout.readline() == "ready\n", self.log.read_text()
        address = read_address(data_dir)
        assert address is not None
        self.address = address

    def ask(self, operation: str, text: str = "") -> Any:
        self._stdin.write(json.dumps([operation, text]) + "\n")
        self._stdin.flush()
        return json.loads(self._stdout.readline())

    def limit_spool(self, statements: int = MOST_STATEMENTS) -> None:
        """Change the limit of the spool of the query log."""
        self.ask("limit", str(statements))

    def fail_spool(self) -> None:
        """Let the next write to the spool fail."""
        self.ask("fail")

    def spooled(self) -> list[tuple[str, str, str | None, int | None, str | None]]:
        """Return user, text, outcome, rows and error of the statements on the spool, read from its file."""
        with closing(sqlite3.connect(f"file:{self.data_dir / 'queries' / FILE}?mode=ro", uri=True)) as database:
            return database.execute(
                "SELECT user, text, outcome, rows, error FROM statements ORDER BY number"
            ).fetchall()

    def readonly_alone(self, sql: str) -> tuple[bool, str]:
        """Run `sql` on a handle that has nothing but readonly=1."""
        ran, text = self.ask("readonly", sql)
        return ran, text

    def stop(self) -> int:
        self._stdin.close()
        self._process.wait(30)
        self._stdout.close()
        return self._process.returncode


def connect(owner: Owner, **options: Any) -> Any:
    address = owner.address
    return clickhouse_connect.get_client(
        host=address.host,
        port=address.port,
        username=address.analyst.user,
        password=address.analyst.password,
        database="audit",
        **options,
    )


def post(
    owner: Owner,
    sql: str | bytes,
    headers: dict[str, str] | None = None,
    credential: EndpointCredential | None = None,
    **parameters: str,
) -> tuple[int, Any, bytes]:
    """POST a query with Basic authentication, as an analyst by default; return status, headers and body."""
    connection = http.client.HTTPConnection(owner.address.host, owner.address.port, timeout=60)
    given = credential or owner.address.analyst
    basic = base64.b64encode(f"{given.user}:{given.password}".encode()).decode()
    try:
        address = "/?" + urllib.parse.urlencode(parameters)
        body = sql.encode() if isinstance(sql, str) else sql
        connection.request("POST", address, body, {"Authorization": f"Basic {basic}"} | (headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def assert_refused(owner: Owner, sql: str, code: int | None = None, **parameters: str) -> str:
    status, headers, body = post(owner, sql, **parameters)
    assert status >= 400, (sql, body[:200])
    if code is not None:
        assert headers["X-ClickHouse-Exception-Code"] == str(code), body
    return body.decode()


def own(data_dir: Path) -> None:
    """Open the engine, serve it, and execute the operations on standard input."""
    import logging

    import pandas

    # Only answers go to standard output; structlog would print there.
    answers, sys.stdout = sys.stdout, sys.stderr
    logging.basicConfig(level=logging.DEBUG)
    path = data_dir / "engine"
    client = clickhouse_connect.get_client(interface="chdb", path=str(path))
    client.command("CREATE DATABASE IF NOT EXISTS audit ENGINE=Atomic")
    client.command(
        "CREATE TABLE IF NOT EXISTS audit.entries (id UInt64, name String, at DateTime64(6, 'UTC')) "
        "ENGINE=MergeTree ORDER BY id"
    )
    client.command("CREATE VIEW IF NOT EXISTS audit.events AS SELECT * FROM audit.entries")
    # The other views of the store have their names only.
    for view in sorted(VIEWS - {"events"}):
        client.command(f"CREATE VIEW IF NOT EXISTS audit.{view} AS SELECT 1")
    client.command(
        f"INSERT INTO audit.entries SELECT number, concat('n', toString(number)), now64(6) FROM numbers({ROWS})"
    )
    (data_dir / "secret.csv").write_text(f"{SECRET},1\n")
    # Found by the engine's Python() through the frames of this process.
    globals()["variable_of_the_owner"] = pandas.DataFrame({"secret_column": [1]})
    analyst = replace(ANALYST, limits={**QUERY_LIMITS, "max_memory_usage": str(512 << 20), "max_execution_time": "60"})
    spool = QuerySpool(data_dir / "queries", MOST_STATEMENTS, 1 << 30)
    endpoint = SqlEndpoint(path, spool, roles=(analyst, AUDITOR, READER))
    with published(data_dir, endpoint.address):
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            operation, text = json.loads(line)
            print(json.dumps(obey(client, path, spool, operation, text)), file=answers, flush=True)
    endpoint.stop(grace_seconds=0.5)
    spool.close()
    client.close()


def obey(client: Any, path: Path, spool: QuerySpool, operation: str, text: str) -> Any:
    import chdb

    if operation == "limit":
        spool._most_statements = int(text)
        return None
    if operation == "fail":
        spool._database.execute("PRAGMA query_only = ON")
        return None

    if operation in {"readonly", "drain", "answer"}:
        handle = chdb.connect(os.path.realpath(path))
        handle.query("USE audit")
        handle.query("SET readonly = 1")
        try:
            answer = handle.query(text, "TabSeparated").bytes() or b""
            return base64.b64encode(answer).decode() if operation == "answer" else (True, answer.decode())
        except RuntimeError as error:
            if operation == "drain":
                return handle.query("SELECT 1", "TabSeparated").bytes().decode(errors="replace")
            return (False, str(error))
        finally:
            handle.close()
    if operation == "names":
        return [row[0] for row in client.query(text).result_rows]
    if operation == "insert":
        slowest = 0.0
        for index in range(int(text)):
            started = time.monotonic()
            rows = [[10**9 + index * 1000 + row, "late", 0] for row in range(1000)]
            client.insert("audit.entries", rows, column_names=["id", "name", "at"])
            slowest = max(slowest, time.monotonic() - started)
        return slowest
    assert operation == "trim"
    client.command("ALTER TABLE audit.entries DELETE WHERE id >= 1000000000 SETTINGS mutations_sync = 2")
    return None


if __name__ == "__main__":
    own(Path(sys.argv[1]))
