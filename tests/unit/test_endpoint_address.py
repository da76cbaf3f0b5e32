"""The address file of the SQL endpoint."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from grantledger.base.errors import UsageError
from grantledger.console.address import (
    AddressFileError,
    EndpointAddress,
    EndpointCredential,
    address_file,
    published,
    read_address,
)
from grantledger.console.endpoint import SqlEndpoint
from grantledger.console.query_spool import QuerySpool

ADDRESS = EndpointAddress("127.0.0.1", 8123, *map(EndpointCredential.generate, ("analyst", "auditor", "reader")))


def test_the_address_file_is_for_its_owner_only(tmp_path: Path) -> None:
    assert read_address(tmp_path) is None
    assert ADDRESS.analyst.password not in repr(ADDRESS)
    path = address_file(tmp_path)
    with published(tmp_path, ADDRESS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert read_address(tmp_path) == ADDRESS
        assert ADDRESS.url == "http://127.0.0.1:8123"
        path.chmod(0o640)
        with pytest.raises(AddressFileError, match="mode 0640, open to others"):
            read_address(tmp_path)
        newer = replace(ADDRESS, port=8124)
        with published(tmp_path, newer):
            assert read_address(tmp_path) == newer
        assert read_address(tmp_path) is None
        with published(tmp_path, newer):
            pass
    assert list(path.parent.iterdir()) == []


def test_the_address_file_of_a_newer_owner_stays(tmp_path: Path) -> None:
    with ExitStack() as older, ExitStack() as newer:
        older.enter_context(published(tmp_path, ADDRESS))
        newer.enter_context(published(tmp_path, replace(ADDRESS, port=8124)))
        older.close()
        assert read_address(tmp_path) == replace(ADDRESS, port=8124)


def test_the_address_file_of_a_killed_owner_is_not_used(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom grantledger.console.address import *\n"
        "with published(Path(sys.argv[1]), EndpointAddress('::', 1, *map(EndpointCredential.generate, 'abc'))):\n"
        "    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert read_address(tmp_path) is not None
        child.kill()
    assert address_file(tmp_path).exists()
    assert read_address(tmp_path) is None


def test_a_damaged_address_file_is_an_error_that_does_not_quote_it(tmp_path: Path) -> None:
    path = address_file(tmp_path)
    with published(tmp_path, ADDRESS):
        fields = json.loads(path.read_text())
        for damaged in ("", "{}", json.dumps(fields | {"port": "x"}), "[" * 10_000):
            path.write_text(damaged)
            with pytest.raises(AddressFileError, match=r"is damaged; remove it and restart the owner") as caught:
                read_address(tmp_path)
            assert caught.value.__cause__ is None
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(AddressFileError):
            read_address(tmp_path)
        path.unlink()


def test_the_endpoint_does_not_create_the_data_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a data folder"):
        SqlEndpoint(tmp_path / "none", QuerySpool(tmp_path / "spool", 1, 1))
    assert not (tmp_path / "none").exists()
