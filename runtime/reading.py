"""A client for reading the store, whoever has it open: a server, the running owner's SQL endpoint, or nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ..console.address import AddressFileError, EndpointAddress, read_address
from ..sinks.clickhouse import StoreAddress, StoreLock, StoreUnavailableError, connect, explain
from .settings import Settings
from .sql_endpoint import published_endpoint
from .wiring import store_address


def live(settings: Settings) -> bool:
    """Whether the store may be written to while it is read: only an embedded one without a running owner is not."""
    if settings.clickhouse_url:
        return True
    try:
        return read_address(settings.data_dir) is not None
    except AddressFileError:
        return True


@contextmanager
def reading(settings: Settings, *, gated: bool = False, shared: bool = False) -> Iterator[Client]:
    """Open the store for reading.

    Args:
        gated: the SQL comes from a person: it passes the gate of the SQL endpoint also where this process opens the
            embedded engine itself. On a server the user's own rights decide, and ``readonly`` is set.
        shared: never open the embedded engine here: its owner could not start meanwhile.

    Raises:
        StoreUnavailableError: there is no store yet, or it cannot be reached.
    """
    address = store_address(settings)
    if not address.embedded:
        with connect(address, create=False) as client:
            if gated:
                client.set_client_setting("readonly", "2")
            yield client
        return
    try:
        access = read_address(settings.data_dir)
    except AddressFileError as error:
        raise StoreUnavailableError(str(error)) from error
    if access is not None:
        with _through(access, address) as client:
            yield client
        return
    if shared:
        raise StoreUnavailableError(f"nobody has the store in {address.path} open")
    if not address.path.exists():
        raise StoreUnavailableError(f"there is no store in {address.path} (--data): start one with `grantledger up`")
    lock = StoreLock(address.path)
    try:
        with connect(address) as owner:
            if not gated:
                yield owner
                return
            with published_endpoint(settings) as access, _through(access, address) as client:
                yield client
    finally:
        lock.release()


def _through(access: EndpointAddress, address: StoreAddress) -> Client:
    # The endpoint runs everything with readonly=1, so the client takes every setting for a forbidden one; the endpoint
    # itself decides which it takes.
    common.set_setting("invalid_setting_action", "send")
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)
    try:
        return clickhouse_connect.get_client(
            host=access.host,
            port=access.port,
            username=access.credential.user,
            password=access.credential.password,
            database=address.database,
            send_receive_timeout=600,
            autogenerate_session_id=False,
        )
    except (ClickHouseError, OSError) as error:
        raise StoreUnavailableError(explain(address, error)) from error
