"""The health check of the image: whether the processes of this container are ready, and if not, what they wait for.

A container runs one process, with its metrics on ``metrics_port``, or a local stack, whose processes have files in the
data folder. Only Python's own library is loaded: the check runs every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

SECONDS = 3.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def check(environment: Mapping[str, str]) -> tuple[bool, list[str]]:
    """Return whether all is ready, and a line for people for each process."""
    host, port = environment.get("GRANTLEDGER_METRICS_HOST", ""), environment.get("GRANTLEDGER_METRICS_PORT", "")
    near = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    problem = "GRANTLEDGER_METRICS_PORT is not set"
    if port not in ("", "0"):
        try:
            ready, text = _ask(f"http://{f'[{near}]' if ':' in near else near}:{port}/readyz")
            return ready, [text]
        except OSError as error:
            problem = f"no process answers on {near}:{port}: {error}"
    processes = _of_stack(Path(environment.get("GRANTLEDGER_DATA_DIR", "data")) / "run")
    if not processes:
        return False, [f"{problem}, and no local stack runs"]
    found = [(name, *_answer(url)) for name, url in sorted(processes.items())]
    return all(ready for _, ready, _ in found), [f"{name}: {text}" for name, _, text in found]


def _of_stack(run: Path) -> dict[str, str]:
    """Return the address of each process of the local stack; none where no stack runs."""
    if not (run / "stack.json").exists():
        return {}
    found = {}
    for path in run.glob("*.json"):
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue  # it is written at this moment, or the process has ended
        if isinstance(content, dict) and "metrics" in content:
            found[path.stem] = str(content["metrics"]).removesuffix("/metrics") + "/readyz"
    return found


def _answer(url: str) -> tuple[bool, str]:
    try:
        return _ask(url)
    except OSError as error:
        return False, f"does not answer: {error}"


def _ask(url: str) -> tuple[bool, str]:
    """Return whether a process is ready, and its first words. Raises OSError if it does not answer."""
    try:
        with _DIRECT.open(url, timeout=SECONDS) as answer:
            return True, _first_line(answer.read(1000))
    except urllib.error.HTTPError as error:
        with error:
            return False, _first_line(error.read(1000)) or f"status {error.code}"
    except HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error


def _first_line(body: bytes) -> str:
    return body.decode("utf-8", "replace").partition("\n")[0]


def main() -> None:
    """Print the lines; exit code 1 if something is not ready."""
    ready, lines = check(os.environ)
    print("\n".join(lines))
    sys.exit(not ready)


if __name__ == "__main__":
    main()
