"""What a running local stack says of itself in its data folder, for the commands that use the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.errors import UsageError

STACK_FILE = Path("run") / "stack.json"
DEPLOYMENT_FILE = Path("deployment")
FROM_STACK = ("deployment", "kafka_bootstrap_servers", "topic_prefix", "lifecycle_shards")
"""Settings that a running local stack passes on to commands in its data folder."""


class StackFileError(UsageError):
    """The file of the stack is damaged; the message names it."""


def write_stack(data_dir: Path, settings: Mapping[str, Any]) -> None:
    """Say that this process runs the stack of a data folder, with these settings."""
    own = {"pid": os.getpid(), "began": _began(os.getpid())}
    (data_dir / STACK_FILE).write_text(json.dumps({**own, **settings}))


def read_deployment(data_dir: Path) -> dict[str, Any]:
    """Return the deployment of the data folder, if a local stack has run there."""
    try:
        return {"deployment": (data_dir / DEPLOYMENT_FILE).read_text("utf-8").strip()}
    except OSError:
        return {}


def read_stack(data_dir: Path) -> dict[str, Any]:
    """Return the settings of the running local stack; empty if none runs."""
    try:
        stack: dict[str, Any] = json.loads((data_dir / STACK_FILE).read_text("utf-8"))
        pid, began = int(stack["pid"]), stack.get("began")
        # In a container, the same program has the same process id at each start.
        return stack if is_running(pid) and (began is None or began == _began(pid)) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise StackFileError(f"{data_dir / STACK_FILE} cannot be read: {error}") from error


def is_running(pid: int) -> bool:
    """Whether a process with this id runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        return True
    return True


def _began(pid: int) -> int | None:
    """Return when a process began, in ticks of the kernel since the machine started; None where nobody says so."""
    try:
        # After the name, which is in parentheses and may contain any.
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
