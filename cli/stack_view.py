"""Runs a stack for `up` and `demo`, and prints what people need to use it."""

from __future__ import annotations

import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..base.text import printable
from ..console.address import read_address
from ..runtime.children import ChildSpec
from ..runtime.process import StartInterruptedError, StopRequest
from ..runtime.publishing import AUTHORITY, EVENTS, Published
from ..runtime.settings import DEFAULT_DATA_DIR, Settings
from ..runtime.stack import Stack
from ..runtime.status import Status
from .container import container, how_to_stop, in_container
from .status_table import status_line, status_table

EXAMPLE = "SELECT append_time, event_type, actor_id, resource_id FROM events ORDER BY append_time DESC LIMIT 10"
"""It shows something in a new ledger, too."""
SENDING = (
    "emit", "request.created", "--subject", "alice@example.com", "--resource-kind", "database", "--resource", "orders",
    "--entitlement", "readwrite",
)  # fmt: skip
EVENT = '{"event_type":"session.started","subject":"alice@example.com","session_id":"s-1","source":{"native_id":"1"}}'
_LINE_SECONDS = 10.0


def demo_policy(settings: Settings) -> Path:
    """Return the file with the policy under which the simulated traffic of a data folder is judged."""
    return settings.data_dir.resolve() / "demo-policy.toml"


def with_demo_policy(settings: Settings) -> Settings:
    """Return settings with the policy of the demo if its traffic is in the data folder, and no policy is set.

    Under another policy, the simulated lives would be full of findings.
    """
    policy = demo_policy(settings)
    if settings.watch_policy is None and policy.exists():
        return settings.model_copy(update={"watch_policy": policy})
    return settings


def run_stack(
    settings: Settings,
    more: tuple[ChildSpec, ...] = (),
    on_ready: Callable[[Console, Stack], None] = lambda _console, _stack: None,
) -> None:
    """Start a stack, show its status until SIGTERM or Ctrl-C, then drain and stop it.

    Args:
        more: further processes of the stack.
        on_ready: called once the store answers.
    """
    console = Console(highlight=False)
    settings = with_demo_policy(settings)
    request = StopRequest()
    stop = request.event
    spinner = console.status("starting")  # shows nothing where there is no terminal

    def report(text: str) -> None:
        console.print(f"  {text}", markup=False, soft_wrap=True)
        spinner.update(text)

    stack = Stack(settings, report, more, interrupting=request.interrupting)
    troubles = TroubleLog(console)
    started = False
    try:
        with spinner:
            stack.start()
            started = True
            if settings.watch_policy == demo_policy(settings):
                report(f"the watch policy is that of the demo, {settings.watch_policy}")
            report("waiting until the store answers")
            _wait_until_ready(stack, troubles, stop)
        if not stop.is_set():
            stack.write_credentials()
            _print_ready(stack, console)
            on_ready(console, stack)
            _show_until(stack, console, troubles, stop)
    except StartInterruptedError:
        console.print("Stopped during the start. The next start begins again.")
    finally:
        if started:
            console.print("Stopping: each process stops when its backlog has drained")
        stack.stop()
        if started:
            console.print("Stopped. All data is in the data folder; the next start continues from there.")


class TroubleLog:
    """Prints a trouble once, again only if its message changes, and its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._known: dict[str, str] = {}

    def show(self, status: Status) -> None:
        """Print the difference to the status before."""
        now = dict(status.troubles_of)
        for name, trouble in now.items():
            if self._known.get(name) != trouble:
                self._print(f"TROUBLE {trouble}", "red")
        for name in self._known.keys() - now.keys():
            self._print(f"{name} is well again", "green")
        self._known = now

    def _print(self, text: str, style: str) -> None:
        self._console.print(Text(f"{datetime.now(UTC):%H:%M:%S} {printable(text)}", style=style), soft_wrap=True)


def _wait_until_ready(stack: Stack, troubles: TroubleLog, stop: threading.Event) -> None:
    while not stop.is_set() and not stack.ready():
        stack.restart_failed()
        troubles.show(stack.status())
        stop.wait(0.5)


def executable(settings: Settings, *arguments: str) -> str:
    """Return a command line to copy: with the path of this executable and the data folder."""
    if in_container():
        return shlex.join(["docker", "exec", container(), "grantledger", *arguments])
    own, on_path = Path(sys.argv[0]).absolute(), shutil.which("grantledger")
    if own.name != "grantledger":
        command = [sys.executable, "-m", "grantledger.cli"]
    elif on_path and Path(on_path).resolve() == own.resolve():
        command = ["grantledger"]
    else:
        command = [str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)]
    folder = [] if settings.data_dir == DEFAULT_DATA_DIR else ["--data", str(settings.data_dir)]
    return shlex.join([*command, *arguments, *folder])


def _print_ready(stack: Stack, console: Console) -> None:
    settings = stack.settings
    where = [f"deployment {settings.deployment}", f"Kafka {settings.kafka_bootstrap_servers}"]
    if not settings.clickhouse_url and (access := read_address(settings.data_dir)) is not None:
        where.append(f"SQL {access.url}")
    lines = {
        "query": executable(settings, "query", EXAMPLE),
        "findings": executable(settings, "findings"),
        "verify": executable(settings, "verify"),
        "send": executable(settings, *SENDING),
        "status": executable(settings, "status"),
        "logs": str(settings.data_dir / "logs"),
    }
    console.print(f"Ready: {', '.join(where)}", soft_wrap=True, markup=False)
    for name, line in lines.items():
        console.print(f"  {f'{name}:':<10} {line}", soft_wrap=True, markup=False)
    if stack.published is not None:
        _print_published(stack.published, console)
    console.print(how_to_stop(), markup=False)


def _print_published(published: Published, console: Console) -> None:
    """Print how other machines reach the gateway and SQL."""
    folder = published.folder.name if in_container() else str(published.folder)
    curl = f"curl --cacert {folder}/{AUTHORITY} --config {folder}"
    lines = {}
    if in_container():
        lines["ports"] = f"docker port {container()} names those outside of the container; inside they are as below"
        lines["get them"] = f"docker cp {container()}:{published.folder} ."
    if (port := published.gateway_port) is not None:
        lines["send"] = (
            f"{curl}/{EVENTS}.curl https://localhost:{port}/v1/events -H 'Content-Type: application/json' -d '{EVENT}'"
        )
    if (port := published.sql_port) is not None:
        lines["query"] = f"{curl}/analyst.curl https://localhost:{port}/ --data-binary '{EXAMPLE} FORMAT Pretty'"
    console.print(
        "For other machines, over TLS; the credentials are in", published.folder, soft_wrap=True, markup=False
    )
    for name, line in lines.items():
        console.print(f"  {f'{name}:':<10} {line}", soft_wrap=True, markup=False)


def _show_until(stack: Stack, console: Console, troubles: TroubleLog, stop: threading.Event) -> None:
    if console.is_terminal:
        with Live(status_table(stack.status()), console=console, refresh_per_second=2) as live:
            while not stop.wait(1.0):
                stack.restart_failed()
                live.update(status_table(stack.status()))
        return
    shown_at = 0.0
    while not stop.wait(1.0):
        stack.restart_failed()
        status = stack.status()
        troubles.show(status)
        if time.monotonic() - shown_at >= _LINE_SECONDS:
            shown_at = time.monotonic()
            console.print(status_line(status), soft_wrap=True, markup=False)
