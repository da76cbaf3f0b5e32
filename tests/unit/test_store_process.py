"""The process that owns the embedded store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_the_engine_is_loaded_before_the_first_thread_starts(tmp_path: Path) -> None:
    """A thread that works while the engine loads crashes the process, or hangs."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr
