"""Reading the store from any process: on a server, through the SQL endpoint of its owner, or by opening the folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..console.address import AddressFileError, CredentialName, EndpointAddress, read_address
from ..console.client import AnswerError, EndpointClient
from ..sinks.clickhouse import (
    Ask,
    Row,
    StoreAddress,
    StoreUnavailableError,
    asking,
    connect,
    explain,
    load_engine,
    lock_store,
    stop_merges,
)
from ..sinks.states import SHOWN_SIZES, STORED_SIZES, States, reaches
from .settings import Settings
from .stack_file import read_stack

if TYPE_CHECKING:  # commands that ask the SQL endpoint do without it
    from clickhouse_connect.driver.client import Client

Answer = TypeVar("Answer")
ANSWER_SECONDS = 120.0
ENDPOINT_SECONDS = 600.0
"""How long an answer of a server, or of the SQL endpoint, may take by default: people ask what takes minutes."""
STATES_SECONDS = 10.0
"""How long commands wait for the states of what is stored."""


def store_address(settings: Settings) -> StoreAddress:
    """Return where the store is."""
    return StoreAddress(
        path=settings.store_path,
        url=settings.clickhouse_url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        database=settings.clickhouse_database,
        options=settings.clickhouse_options,
    )


def is_live(settings: Settings) -> bool:
    """Whether the store may change while it is read: only an embedded store without a running owner does not."""
    if settings.clickhouse_url:
        return True
    try:
        return read_address(settings.data_dir) is not None
    except AddressFileError:
        return True


def load_engine_early(settings: Settings) -> None:
    """Load the embedded engine if this process will open the store itself.

    A command calls this before it starts a thread or a Kafka client (see :func:`load_engine`).
    """
    if settings.clickhouse_url or is_live(settings) or read_stack(settings.data_dir):
        return
    if settings.store_path.exists():
        load_engine()


class Reader(Protocol):
    """Asks a store. A statement that it refuses, or that fails, raises AnswerError."""

    def ask(self, sql: str, **values: object) -> list[Row]:
        """Return the rows of a query; times have their zone, UTC."""

    def raw(self, sql: str, output_format: str) -> bytes:
        """Return the answer in one of ClickHouse's formats."""


@contextmanager
def read_store(
    settings: Settings,
    *,
    read_only: bool = True,
    shared: bool = False,
    role: CredentialName = "reader",
    answer_seconds: float | None = None,
) -> Iterator[Reader]:
    """Open the store for queries. Arguments as for :func:`open_store`, which is for what needs Arrow."""
    address = store_address(settings)
    with _opened(settings, address, read_only=read_only, shared=shared, answer_seconds=answer_seconds) as found:
        if isinstance(found, EndpointAddress):
            credential = found.credential(role)
            client = EndpointClient(found, credential, address.database, answer_seconds or ENDPOINT_SECONDS)
            yield _EndpointReader(client, address)
        else:
            yield _ClientReader(found)


@contextmanager
def open_store(
    settings: Settings, *, read_only: bool = False, role: CredentialName = "reader", answer_seconds: float | None = None
) -> Iterator[Client]:
    """Open the store for reading with clickhouse-connect.

    Args:
        role: on the embedded engine, our own commands are readers: they read all tables and have places of their own.
            People's statements run with the rights and limits of an analyst or auditor, and are recorded.
        read_only: reject statements that do not only read. ``readonly`` and the user's rights enforce this on a server,
            the SQL endpoint on the embedded engine.
        answer_seconds: how long an answer may take.
    """
    address = store_address(settings)
    with _opened(settings, address, read_only=read_only, shared=False, answer_seconds=answer_seconds) as found:
        if isinstance(found, EndpointAddress):
            with _connected(found, address, role, answer_seconds) as client:
                yield client
        else:
            yield found


@contextmanager
def _opened(
    settings: Settings, address: StoreAddress, *, read_only: bool, shared: bool, answer_seconds: float | None
) -> Iterator[Client | EndpointAddress]:
    """Find the SQL endpoint of the store's owner; without one, connect to the server or open the folder.

    Args:
        shared: never open the folder of the embedded engine here, because its owner could not start meanwhile. A local
            stack that runs is such an owner: it restarts its store.
    """
    if not address.embedded:
        with connect(address, create=False, answer_seconds=answer_seconds or ANSWER_SECONDS) as client:
            if read_only:
                client.set_client_setting("readonly", "2")
            yield client
        return
    try:
        endpoint = read_address(settings.data_dir)
    except AddressFileError as error:
        raise StoreUnavailableError(str(error)) from error
    if endpoint is not None:
        yield endpoint
        return
    if read_stack(settings.data_dir):
        raise StoreUnavailableError(
            f"the store in {address.path} does not answer yet: its stack is starting it. Try again"
        )
    if shared:
        raise StoreUnavailableError(f"no process has the store in {address.path} open")
    if not address.path.exists():
        raise StoreUnavailableError(f"there is no store in {address.path} (--data): start one with `grantledger up`")
    with lock_store(address.path), connect(address) as owner:
        stop_merges(owner)
        if not read_only:
            yield owner
            return
        refresh_states(owner)
        from .sql_endpoint import temporary_endpoint  # the web server: most readers find one running

        with temporary_endpoint(settings) as endpoint:
            yield endpoint


class _EndpointReader:
    """Asks the SQL endpoint."""

    def __init__(self, client: EndpointClient, address: StoreAddress) -> None:
        self._client, self._address = client, address

    def ask(self, sql: str, **values: object) -> list[Row]:
        return self._reached(lambda: self._client.ask(sql, **values))

    def raw(self, sql: str, output_format: str) -> bytes:
        return self._reached(lambda: self._client.raw(sql, output_format))

    def _reached(self, answer: Callable[[], Answer]) -> Answer:
        try:
            return answer()
        except OSError as error:
            raise StoreUnavailableError(explain(self._address, error)) from error


class _ClientReader:
    """Asks a server, or the engine in this process."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def ask(self, sql: str, **values: object) -> list[Row]:
        return self._answered(lambda: asking(self._client)(sql, **values))

    def raw(self, sql: str, output_format: str) -> bytes:
        return self._answered(lambda: self._client.raw_query(sql, fmt=output_format))

    @staticmethod
    def _answered(answer: Callable[[], Answer]) -> Answer:
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            return answer()
        except (ClickHouseError, OSError) as error:
            raise AnswerError(str(error)) from error


def refresh_states(owner: Client) -> None:
    """Bring the states up to date: the last owner may have been killed before it did."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    states = States(owner)
    try:
        while states.refresh():
            pass
    except (ClickHouseError, OSError) as error:
        raise StoreUnavailableError(_for_people(error)) from error


@contextmanager
def open_store_to_write(settings: Settings) -> Iterator[Client]:
    """Open the store as the store's process does, for the few commands that change it.

    Raises:
        StoreUnavailableError: it cannot be opened, or another process has it open.
    """
    address = store_address(settings)
    if not address.embedded:
        with connect(address, create=False) as client:
            yield client
        return
    if not address.path.exists():
        raise StoreUnavailableError(f"there is no store in {address.path} (--data): start one with `grantledger up`")
    with lock_store(address.path), connect(address) as client:
        yield client


@contextmanager
def ask_store(
    settings: Settings, *, read_only: bool = True, shared: bool = False, answer_seconds: float | None = None
) -> Iterator[Ask]:
    """Open the store for queries, as :func:`read_store`. All that goes wrong raises StoreUnavailableError."""
    with read_store(settings, read_only=read_only, shared=shared, answer_seconds=answer_seconds) as reader:

        def ask(sql: str, **values: object) -> list[Row]:
            try:
                return reader.ask(sql, **values)
            except AnswerError as error:
                raise StoreUnavailableError(_for_people(error)) from error

        yield ask


@contextmanager
def ask_states(settings: Settings, on_old: Callable[[], None] = lambda: None) -> Iterator[Ask]:
    """Open the store for queries of requests, grants and findings.

    The store computes their states some seconds after it stored an event. The queries wait for the states of everything
    that is stored now, but not for a store that has much to catch up with: then ``on_old`` is called.
    """
    with ask_store(settings) as ask:
        stored, until = ask(STORED_SIZES)[0]["sizes"], time.monotonic() + STATES_SECONDS
        while not reaches(ask(SHOWN_SIZES)[0]["sizes"], stored):
            if time.monotonic() >= until:
                on_old()
                break
            time.sleep(0.2)
        yield ask


def _for_people(error: Exception) -> str:
    message = clickhouse_message(error)
    if "UNKNOWN_TABLE" in message or "Code: 60" in message:
        return "an earlier version made this store; start `grantledger up` or `run store` to migrate it"
    return message


def clickhouse_message(error: Exception) -> str:
    """Return the first line of ClickHouse's own message, without the parts that the client adds."""
    text = str(error).strip()
    return text[max(text.find("Code:"), 0) :].split("\n", 1)[0].partition(" (for url ")[0]


def _connected(
    endpoint: EndpointAddress, address: StoreAddress, role: CredentialName, answer_seconds: float | None = None
) -> Client:
    import clickhouse_connect
    from clickhouse_connect import common
    from clickhouse_connect.driver.exceptions import ClickHouseError

    # The endpoint runs everything with readonly=1, so the client would reject every setting. The endpoint decides
    # which settings it accepts.
    common.set_setting("invalid_setting_action", "send")
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
    credential = endpoint.credential(role)
    try:
        return clickhouse_connect.get_client(
            host=endpoint.host,
            port=endpoint.port,
            username=credential.user,
            password=credential.password,
            database=address.database,
            send_receive_timeout=answer_seconds or ENDPOINT_SECONDS,
            autogenerate_session_id=False,
        )
    except (ClickHouseError, OSError) as error:
        raise StoreUnavailableError(explain(address, error)) from error
