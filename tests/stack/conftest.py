"""Fixtures: the owner process of the SQL endpoint, and a ledger to tamper with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from grantledger.console.address import address_file
from grantledger.ledger.keys import read_public_pem
from support.shared_broker import RunningBroker, shared_folder
from support.sql_endpoint import Owner, connect
from support.tamper import TamperedStore, copied
from support.tampered_ledger import DEPLOYMENT, Ledger, make_once


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


@pytest.fixture(scope="session")
def ledger(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger that tests may change. It is created once per run, and every test process has its own copy."""
    pipeline, sealed = make_once(shared_folder(tmp_path_factory), broker.bootstrap_servers)
    folder = copied(pipeline.data_dir / "clickhouse", tmp_path_factory.mktemp("tampered") / "clickhouse")
    key = read_public_pem((pipeline.data_dir / "keys" / "log.pub").read_bytes())
    with TamperedStore(folder, DEPLOYMENT, key, pipeline.data_dir / "anchors.jsonl") as store:
        yield Ledger(pipeline, store, sealed)


@pytest.fixture
def sealed(ledger: Ledger) -> dict[str, list[bytes]]:
    """The records of every sealed partition of the ledger, in order, before any test writes to them."""
    return ledger.sealed
