"""A ClickHouse server for tests: the real engine (chDB) behind the part of the HTTP interface that the sink uses.

Package indexes have no ClickHouse server, so the tests of the server mode use this one. It has the SQL, settings,
formats and error codes of a server, over HTTP, with user and password. Run as
``python clickhouse_server.py FOLDER PORT USER PASSWORD [CONFIGURATION]``; with the configuration of an engine
(:mod:`support.clickhouse_users`), everything runs with the rights of its user ``default``. Statements that make users,
roles and row policies are parsed and do nothing.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import chdb
import lz4.frame

TRANSPORT = {
    "query", "database", "default_format", "user", "password", "session_id", "session_timeout", "session_check",
    "wait_end_of_query", "client_protocol_version", "compress", "decompress", "buffer_size", "query_id", "role",
    "enable_http_compression", "send_progress_in_http_headers", "http_headers_progress_interval_ms",
}  # fmt: skip
LOCK = threading.Lock()
NO_ROW_POLICIES = (
    "(SELECT '' AS name, '' AS database, '' AS `table`, '' AS select_filter, 0 AS is_restrictive, 0 AS apply_to_all, "
    "[''] AS apply_to_list WHERE 0)"
)
ACCESS_CONTROL = re.compile(r"(GRANT|CREATE (USER|ROLE|ROW POLICY|SETTINGS PROFILE))\b")


class Handler(BaseHTTPRequestHandler):
    """One request, one statement."""

    protocol_version = "HTTP/1.1"
    folder: str
    credential: tuple[str, str]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        encoding = self.headers.get("Content-Encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "lz4":
            body = lz4.frame.decompress(body)
        elif encoding:
            self._send(500, f"encoding {encoding}".encode())
            return
        self._answer(body)

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _answer(self, body: bytes) -> None:
        url = urlsplit(self.path)
        if url.path == "/ping":
            self._send(200, b"Ok.\n")
            return
        given = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        if self._credential(given) != self.credential:
            self._fail(516, "Authentication failed: password is incorrect, or there is no user with such name.", 403)
            return
        sql = given.get("query", "")
        with LOCK, tempfile.NamedTemporaryFile() as file:
            if sql.lstrip()[:6].upper() == "INSERT" and body:
                file.write(body)
                file.flush()
                start, _, shape = sql.rpartition(" FORMAT ")
                sql = f"{start} FROM INFILE '{file.name}' FORMAT {shape}"
            elif body:
                head, newline, data = body.partition(b"\n")
                if head[:6].upper() == b"INSERT" and newline and data:
                    file.write(data)
                    file.flush()
                    start, _, shape = head.decode().rpartition(" FORMAT ")
                    sql = f"{start} FROM INFILE '{file.name}' FORMAT {shape}"
                else:
                    sql = (sql + "\n" + body.decode()).strip()
            self._run(sql, given)

    def _run(self, sql: str, given: dict[str, str]) -> None:
        # The embedded engine has no row policies; a server has the table, empty.
        sql = sql.replace("system.row_policies", NO_ROW_POLICIES)
        if ACCESS_CONTROL.match(sql):
            sql = f"EXPLAIN AST {sql}"
        settings = {n: v for n, v in given.items() if n not in TRANSPORT and not n.startswith("param_")}
        engine = chdb.connect(self.folder)  # one handle per request: settings belong to the request, as on a server
        parameters = {n[6:]: v for n, v in given.items() if n.startswith("param_")}
        try:
            if given.get("database") and given["database"] != "__default__":
                engine.query(f"USE {given['database']}")
            for name, value in settings.items():
                engine.query(f"SET {name} = '{value}'")
            shape = given.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated"
            result = engine.query(sql, shape, params=parameters)
            answer = result.bytes() or b""
        except Exception as error:
            text = str(error)
            start = text.find("Code: ")
            code = text[start + 6 :].split(".", 1)[0] if start >= 0 else "1002"
            self._fail(int(code), text[start:] if start >= 0 else text, 500)
            return
        finally:
            engine.close()
        self._send(200, answer)

    def _credential(self, given: dict[str, str]) -> tuple[str, str]:
        import base64

        scheme, _, encoded = (self.headers.get("Authorization") or "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(encoded).decode().partition(":")
            return user, password
        user = self.headers.get("X-ClickHouse-User") or given.get("user", "default")
        return user, self.headers.get("X-ClickHouse-Key") or given.get("password", "")

    def _fail(self, code: int, text: str, status: int) -> None:
        message = text if text.startswith("Code:") else f"Code: {code}. DB::Exception: {text}"
        self._send(status, message.encode(), {"X-ClickHouse-Exception-Code": str(code)})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"X-ClickHouse-Summary": "{}", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def main() -> None:
    """Serve until killed."""
    folder, port, user, password = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    Handler.folder = f"{folder}?config-file={sys.argv[5]}" if len(sys.argv) > 5 else str(folder)
    keeps_the_engine = chdb.connect(Handler.folder)
    Handler.credential = (user, password)
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), port), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
    keeps_the_engine.close()


if __name__ == "__main__":
    main()
