"""One broker for all test processes of a run: the first that needs it starts it, and ends it after the last one."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from grantledger.runtime.broker import LocalBroker


@dataclass(frozen=True)
class RunningBroker:
    """A broker that this process may use, but not stop."""

    bootstrap_servers: str
    pid: int
    data_dir: Path


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary folder of all test processes of this run."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def shared_broker(folder: Path) -> Iterator[RunningBroker]:
    """Use the broker whose address is in a folder, or start it.

    The broker ends with the process that started it, so that process waits until no other process uses it: each
    user holds a shared lock on one file. A lock on another file is held while the broker starts and while it ends.
    """
    address = folder / "broker.json"
    with (folder / "broker.lock").open("a") as changing, (folder / "broker.users").open("a") as users:
        own: LocalBroker | None = None
        with locked(changing):
            if not address.exists():
                own = LocalBroker(folder / "broker")
                own.start()
                address.write_text(json.dumps([own.bootstrap_servers, own.pid]), encoding="utf-8")
            found = RunningBroker(*json.loads(address.read_text(encoding="utf-8")), data_dir=folder / "broker")
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield found
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            while own is not None and not _end(own, address, changing, users):
                time.sleep(0.2)


def _end(broker: LocalBroker, address: Path, changing: TextIO, users: TextIO) -> bool:
    """End the broker unless another process uses it. Returns whether it has ended."""
    with locked(changing):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        address.unlink()
        broker.kill()  # nothing reads its data again, and a clean stop takes seconds with many topics
        return True


@contextmanager
def locked(file: TextIO) -> Iterator[None]:
    """Hold an exclusive lock on a file."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
