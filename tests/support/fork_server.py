"""Starts processes of the pipeline quickly: a server that has imported their code forks one process per request.

The tests start hundreds of processes, and each would spend a second of CPU time on imports. A forked process runs the
same command line, with its own environment, session and output. Processes that tests start by a command (``up``, and
one test per command) begin with Python as usual.

The store replaces itself by a new program once its sandbox is closed. Here the program begins in the same process, with
the environment that it would have had, so that it does not import everything again either. Tests of the sandbox set
``REPLACED`` in the environment: then it is replaced as usual, and so it is in ``up``. Tests that read no states of
requests, grants and findings set ``STATELESS``: to compute these states takes most of the CPU time of a store.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from grantledger.base.imports import without_pandas
from grantledger.runtime.children import Child
from grantledger.sinks.state_refresher import StateRefresher

MODULES = (
    "grantledger.cli.app", "grantledger.cli.common_options", "grantledger.cli.follow",
    *(f"grantledger.cli.run.{name}" for name in ("seal", "anchor", "watch", "sweep", "alert", "gateway")),
    "grantledger.cli.run.enforce", "grantledger.cli.run.store", "grantledger.runtime.store_start",
    "grantledger.runtime.store_process", "faust.app",
)  # fmt: skip
"""What processes import."""
PR_SET_PDEATHSIG = 1
REPLACED = "TEST_STORE_REPLACED"
"""Variable in the environment of a forked process: the store replaces itself by a new program."""
STATELESS = "TEST_STORE_STATELESS"
"""Variable in the environment of a forked process: the store computes no states."""
_execve = os.execve


class ReplacedError(BaseException):
    """Unwinds the stack of a forked process that would now be another program."""


class ForkedProcess:
    """A process that the server has forked. It has the methods of ``subprocess.Popen`` that its users need."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._answer = connection, b""
        self._lock = threading.Lock()  # tests poll it while a thread restarts what has failed
        self.pid = json.loads(self._line())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        with self._lock:
            if self.returncode is None and _readable(self._connection, 0):
                line = self._line()  # nothing: the server is gone, and the kernel has killed its children
                self.returncode = json.loads(line) if line else -signal.SIGKILL
                self._connection.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, and return its exit code."""
        if self.returncode is None and not _readable(self._connection, timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _line(self) -> bytes:
        while b"\n" not in self._answer and (received := self._connection.recv(100)):
            self._answer += received
        line, _, self._answer = self._answer.partition(b"\n")
        return line


def _readable(connection: socket.socket, seconds: float | None) -> bool:
    """Wait for an answer. Test processes have too many open files for ``select``."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


class ForkedChild(Child):
    """A supervised process that the fork server starts."""

    def _launch(self) -> Any:
        request = {
            "arguments": self.spec.arguments,
            "folder": str(Path.cwd()),
            "output": str(self.log_path),
            "environment": self._environment,
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(_server())
        connection.sendall(json.dumps(request).encode() + b"\n")
        return ForkedProcess(connection)


@cache
def _server() -> str:
    """Start the server of this test process, and return its address."""
    folder = tempfile.mkdtemp(prefix="fork-server-")
    atexit.register(shutil.rmtree, folder)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address := f"{folder}/socket")
    listener.listen()
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}  # else no safe fork
    environment = {**os.environ, **one_thread, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.Popen(
        [sys.executable, "-m", __name__, str(listener.fileno()), str(os.getpid())],
        env=environment, pass_fds=[listener.fileno()], start_new_session=True,
    )  # fmt: skip
    listener.close()
    return address


def serve(listener: socket.socket) -> Sequence[str]:
    """Fork a process per connection, until the kernel ends this one. Returns the arguments in each forked process."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([listener, *running], [], [])
        for each in ready:
            if each is not listener:
                pid, connection = running.pop(each)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(each)
                with connection:
                    connection.sendall(f"{code}\n".encode())
                continue
            connection, _ = listener.accept()
            request = json.loads(connection.makefile("rb").readline())
            Path(request["output"]).touch()
            server = os.getpid()
            if (pid := os.fork()) == 0:
                _end_with(server)
                for _, used in running.values():
                    used.close()
                for descriptor in running:
                    os.close(descriptor)
                connection.close()
                listener.close()
                return _become(**request)
            connection.sendall(f"{pid}\n".encode())
            running[os.pidfd_open(pid)] = (pid, connection)


def _replace(path: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Continue with a module of ours in this process, like ``os.execve`` with ``python -m``."""
    if _threads() > 1:  # the engine must be loaded before the first thread starts
        _execve(path, arguments, environment)
    _, _, module, *own = arguments
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *own]
    raise ReplacedError


def _threads() -> int:
    status = Path("/proc/self/status").read_text()  # all that the sandbox allows
    return int(status.partition("\nThreads:")[2].split()[0])


def _become(arguments: Sequence[str], folder: str, output: str, environment: Mapping[str, str]) -> Sequence[str]:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    return arguments


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends."""
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        sys.exit("the parent process is gone")


def main() -> None:
    """Serve on a listening socket, and become what is asked for. Arguments: its descriptor, and the parent's pid."""
    _end_with(int(sys.argv[2]))
    without_pandas()  # as in all of our processes
    for name in MODULES:
        importlib.import_module(name)
    assert _threads() == 1, f"an import has started threads: {_threads()}"
    gc.freeze()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = ["grantledger", *arguments]
    if REPLACED not in os.environ:
        os.execve = _replace
    if STATELESS in os.environ:
        StateRefresher.start = lambda self: None  # type: ignore[method-assign]
    try:
        sys.modules["grantledger.cli.app"].app(list(arguments), prog_name="grantledger")
    except ReplacedError:
        pass
    else:
        return
    importlib.import_module(sys.argv[0]).main()  # a module that imports the engine, which starts threads


if __name__ == "__main__":
    main()
