"""Connect to ClickHouse: a server, or the embedded engine in a folder, with the same client."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from ..base.errors import DependencyError
from ..base.files import check_working_folder, lock_file

if TYPE_CHECKING:  # commands that ask the SQL endpoint do without it
    from clickhouse_connect.driver.client import Client

for _name in ("clickhouse_connect", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # they also raise what they log, with the whole request


class StoreUnavailableError(DependencyError):
    """ClickHouse cannot be reached or used; the message names the setting to check."""


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The address of the store: a server's URL, or the folder of the embedded engine if ``url`` is empty."""

    path: Path
    url: str = ""
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "audit"
    options: Mapping[str, Any] = field(default_factory=dict)
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the embedded engine, from the first client of a process that opens it."""

    @property
    def embedded(self) -> bool:
        """Whether the engine runs inside this process."""
        return not self.url


_HAS_DATABASE = "SELECT count() FROM system.databases WHERE name = {name:String}"
Row = dict[str, Any]
Ask = Callable[..., list[Row]]
"""``ask(sql, name=value, …)`` returns the rows of one query. Values are bound to its ``{name:Type}``."""


def asking(client: Client) -> Ask:
    """Return the function that queries with a client. Times in rows have their zone, UTC."""
    return lambda sql, **values: list(client.query(sql, parameters=values, tz_mode="aware").named_results())


def lock_store(path: Path) -> BinaryIO:
    """Make this process the only owner of the embedded engine, from before it is opened until the file is closed."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return lock_file(path.parent / f"{path.name}.lock")
    except BlockingIOError:
        raise StoreUnavailableError(
            f"the store in {path} is in use by another process (a running stack?); only one can open it"
        ) from None


def private_temp(path: Path) -> None:
    """Put temporary files next to the store and delete those of killed processes.

    The embedded engine writes each insert to a file first, and the file survives ``kill -9``. A process that has a
    folder of its own there already keeps it.
    """
    folder = path.parent / f"{path.name}.tmp"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = Path(os.environ.get("TMPDIR", ""))
    own = given if given.parent == folder else folder
    # The folder itself stays: a sandbox may allow only what is in it.
    for left in folder.iterdir():
        if left == own:
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    tempfile.tempdir = str(own)
    if own != given:
        os.environ["TMPDIR"] = str(own)


def connect(address: StoreAddress, *, create: bool = True, answer_seconds: float = 120.0) -> Client:
    """Return a client whose database exists.

    Args:
        create: create a missing database. Readers do not: they may lack the right.
        answer_seconds: how long a server may take to answer.

    Raises:
        StoreUnavailableError: not reachable, refused, or the address is malformed; names the setting.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError

    try:
        if not create:
            return _client(address, address.database, answer_seconds)
        with _client(address, None, answer_seconds) as first:
            # A server demands the right to create a database also where it exists.
            if address.embedded or not first.query(_HAS_DATABASE, {"name": address.database}).result_rows[0][0]:
                engine = " ENGINE=Atomic" if address.embedded else ""
                first.command(f"CREATE DATABASE IF NOT EXISTS {address.database}{engine}")
            # Before the first client closes: the embedded engine would stop, and start again.
            return _client(address, address.database, answer_seconds)
    except ClickHouseError as error:
        raise StoreUnavailableError(explain(address, error)) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreUnavailableError(f"{_place(address)}: {error}") from error


def _client(address: StoreAddress, database: str | None, answer_seconds: float) -> Client:
    import clickhouse_connect

    if address.embedded:
        check_working_folder()
        options = dict(address.engine_options)
        return clickhouse_connect.get_client(
            interface="chdb", path=str(address.path), database=database, chdb_options=options
        )
    url = urlsplit(address.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise StoreUnavailableError(f"clickhouse_url {address.url!r} is not http(s)://host:port")
    return clickhouse_connect.get_client(
        host=url.hostname,
        port=url.port or (8443 if url.scheme == "https" else 8123),
        interface=url.scheme,
        username=address.user,
        password=address.password,
        database=database or "__default__",
        connect_timeout=10,
        **{"send_receive_timeout": answer_seconds, **address.options},
    )


def stop_merges(client: Client) -> None:
    """Merge nothing in this process: it opened the store for a short time, and would throw unfinished merges away."""
    client.command("SYSTEM STOP MERGES")


def load_engine() -> None:
    """Load the embedded engine. A process that has several threads later must call this before the first one starts.

    While it loads, the engine changes the working folder and the memory allocator of the whole process: a thread that
    works at that moment can crash or hang.
    """
    importlib.import_module("chdb")


def is_embedded(client: Client) -> bool:
    """Whether the client's engine runs inside this process."""
    return client.uri.startswith("chdb:")


def explain(address: StoreAddress, error: BaseException) -> str:
    """Return an error of ClickHouse in one line that names the setting to check."""
    if not address.embedded and (reason := _no_connection(error)):
        return f"{_place(address)} cannot be reached: {reason}"
    text = str(error).split("\n", 1)[0][:300]
    if "AUTHENTICATION_FAILED" in str(error) or "Code: 516" in str(error):
        return f"{_place(address)} refuses user {address.user!r}: check clickhouse_user and clickhouse_password"
    if "ACCESS_DENIED" in str(error) or "Code: 497" in str(error):
        return (
            f"{_place(address)}: user {address.user!r} lacks a right. After an upgrade, an administrator runs "
            f"`grantledger init --clickhouse-roles` again (docs/clickhouse-server.md): {text}"
        )
    if "NOT_ENOUGH_SPACE" in str(error) or "No space left" in str(error) or "Code: 243" in str(error):
        return f"{_place(address)} is out of disk space: free some, nothing is lost meanwhile ({text})"
    return f"{_place(address)}: {text}"


def _no_connection(error: BaseException) -> str:
    """Return why a server cannot be reached, from the first of the chained errors; empty if that is not the cause.

    The text of the last one begins with the whole request.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return (error.strerror or "") if isinstance(error, OSError) else ""


def _place(address: StoreAddress) -> str:
    return (
        f"the store in {address.path} (data_dir)"
        if address.embedded
        else f"ClickHouse at {address.url} (clickhouse_url)"
    )
