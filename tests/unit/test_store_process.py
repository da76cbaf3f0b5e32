"""Processes that open the embedded store load its engine before their first thread starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from grantledger.base.errors import UsageError
from grantledger.runtime import store_start
from grantledger.runtime.keys import create_key
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_start import PYTHON
from grantledger.sinks.clickhouse import StoreAddress, connect
from support.access_store import fill

SCRIPT = """
import sys, threading
from pathlib import Path
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_process import serve

def start(thread):
    print("loaded" if "chdb" in sys.modules else "not loaded", flush=True)
    raise SystemExit(0)

threading.Thread.start = start
data = Path(sys.argv[1])
(data / "clickhouse").mkdir()
serve(Settings(data_dir=data, deployment="test.example"), {}, None, 0)
"""


ENVIRONMENT = """
import ctypes, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "chdb":
            at = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value
            spans = [line.split() for line in open("/proc/self/maps")]
            for span in spans:
                first, end = (int(one, 16) for one in span[0].split("-"))
                if first <= at < end:
                    print(span[-1], flush=True)

sys.meta_path.insert(0, Finder())
import grantledger.runtime.store_program
"""


def test_the_engine_is_loaded_before_the_environment_is_changed() -> None:
    """It may read what the kernel put behind the environment, on the stack. A changed environment is elsewhere."""
    done = subprocess.run(
        [sys.executable, "-c", ENVIRONMENT], env={**PYTHON, "PATH": ""}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[stack]\n"), done.stderr


def test_the_engine_is_loaded_before_the_first_thread_starts(tmp_path: Path) -> None:
    """A thread that works while the engine loads crashes the process, or hangs."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr


COMMAND = """
import sys, threading
from pathlib import Path
from grantledger.cli.app import app

def start(thread):
    print("loaded" if "chdb" in sys.modules else "not loaded", flush=True)
    raise SystemExit(0)

threading.Thread.start = start
app(sys.argv[1:])
"""


def test_a_command_that_opens_the_store_loads_the_engine_first(tmp_path: Path) -> None:
    """The thread that reads how far the store lags starts after it."""
    settings = Settings(data_dir=tmp_path)
    fill(tmp_path, ())
    create_key(settings)
    (tmp_path / "deployment").write_text("test.example")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "query", "SELECT 1", "--data", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[:1] == ["loaded"], done.stdout + done.stderr


def test_the_engine_is_not_loaded_before_the_sandbox(tmp_path: Path) -> None:
    """It starts threads, which a sandbox entered later would not restrict."""
    program = (
        "import sys; from pathlib import Path; from grantledger.runtime import store_start; "
        "from grantledger.cli.run.store import command; from grantledger.runtime.settings import Settings\n"
        "store_start.start = lambda settings: sys.exit('chdb' in sys.modules)\n"
        "command(Settings(data_dir=Path(sys.argv[1])))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 0


def test_a_configuration_in_the_working_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would read it in place of its own, and with it users, paths and limits."""
    (tmp_path / "config.xml").write_text("<clickhouse/>")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"{tmp_path}/config.xml"):
        store_start.start(Settings(data_dir=tmp_path / "data", deployment="test.example"))
    with pytest.raises(UsageError, match="another working folder"):
        connect(StoreAddress(tmp_path / "store"))
    assert not (tmp_path / "data").exists() and not (tmp_path / "store").exists()
