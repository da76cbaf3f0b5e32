"""The embedded engine behind HTTP, with the passwords of /etc/clickhouse-server/users.d, and not the rights there."""

from __future__ import annotations

import hashlib
import os
import sys
from http.server import ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, "/stand-ins-of-tests")

import chdb
import clickhouse_server
from clickhouse_users import configuration, connection

USERS = "/etc/clickhouse-server/users.d/grantledger.xml"


class Users(tuple[str, str]):
    """Equal to each user with the right password."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        user, password = other if isinstance(other, tuple) else ("", "")
        found = ElementTree.parse(USERS).find(f"users/{user}/password_sha256_hex")
        return found is None or found.text != hashlib.sha256(str(password).encode()).hexdigest()

    __eq__ = None  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def main() -> None:
    """Serve until killed."""
    folder = Path("/var/lib/clickhouse/engine")
    folder.mkdir(parents=True, exist_ok=True)
    clickhouse_server.Handler.folder = connection(folder, configuration(folder.parent, None))
    keeps_the_engine = chdb.connect(clickhouse_server.Handler.folder)
    clickhouse_server.Handler.credential = Users(("", ""))
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), clickhouse_server.Handler).serve_forever()
    keeps_the_engine.close()


if __name__ == "__main__":
    main()
