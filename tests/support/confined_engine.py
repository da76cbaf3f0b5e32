"""An engine without the SQL gate, in the sandbox of the store: what would an escape reach?

Run as a script: DATA_DIR, BROKER_PORT; statements on standard input, one JSON string per line; one JSON answer each.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import chdb  # before all other libraries, as in the store

from grantledger.runtime import landlock
from grantledger.runtime.settings import Settings
from grantledger.runtime.store_sandbox import file_rules, kept_environment, port_rules
from grantledger.runtime.store_start import PYTHON, temporary_folder
from grantledger.sinks.clickhouse import private_temp


def main() -> None:
    if sys.argv[1] != "confined":
        settings = Settings(data_dir=Path(sys.argv[1]), kafka_bootstrap_servers=f"127.0.0.1:{sys.argv[2]}")
        own = (Path(__file__), landlock.READ)  # the store's own program is in the package
        landlock.restrict([*file_rules(settings), own], port_rules(settings, None))
        arguments = [sys.executable, __file__, "confined", str(settings.store_path)]
        temporary = temporary_folder(settings) / str(os.getpid())
        temporary.mkdir()
        environment = kept_environment(os.environ) | PYTHON | {"TMPDIR": str(temporary)}
        os.execve(sys.executable, arguments, environment)
    private_temp(Path(sys.argv[2]))
    connection = chdb.connect(sys.argv[2])
    connection.query("CREATE DATABASE IF NOT EXISTS audit ENGINE = Atomic")

    def answer(statement: str) -> None:
        try:
            if statement.startswith("python:"):
                exec(statement.removeprefix("python:"), {})
                print(json.dumps([True, ""]), flush=True)
            else:
                text = connection.query(statement, "TSV").bytes().decode(errors="replace")
                print(json.dumps([True, text]), flush=True)
        except Exception as error:
            print(json.dumps([False, f"{type(error).__name__} {error}"]), flush=True)

    for line in sys.stdin:
        thread = threading.Thread(target=answer, args=(json.loads(line),))
        thread.start()
        thread.join()


if __name__ == "__main__":
    main()
