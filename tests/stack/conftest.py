"""Fixtures of the tests of the SQL endpoint: one owner process for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grantledger.console.address import address_file
from support.sql_endpoint import Owner, connect


@pytest.fixture(scope="session")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    owner = Owner(tmp_path_factory.mktemp("owner"))
    yield owner
    assert owner.stop() == 0, owner.log.read_text()
    assert not address_file(owner.data_dir).exists()


@pytest.fixture
def client(owner: Owner) -> Iterator[Any]:
    client = connect(owner)
    yield client
    client.close()
