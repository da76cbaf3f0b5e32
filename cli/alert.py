"""``grantledger alert``: run the alerts, or see and steer them."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table

from ..base.errors import EXIT_DEPENDENCY, EXIT_USAGE
from ..runtime.process import complain, on_stop_signal, serving
from ..runtime.settings import Settings, SettingsError
from ..sinks.alerts.config import AlertConfig, AlertConfigError, load_config
from ..sinks.alerts.database import OutboxError, OutboxLock
from ..sinks.alerts.outbox import Outbox
from ..sinks.alerts.routes import build_routes
from ..sinks.alerts.service import Alerting
from ..sinks.alerts.status import read_status
from .running import settings_of, told
from .terminal import as_json, moment, shortened, span, wide_console


def command(
    context: typer.Context,
    *,
    list_: Annotated[bool, typer.Option("--list", help="Show channels, open alerts and failures, and exit.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="With --list: as JSON.")] = False,
    enable: Annotated[
        str,
        typer.Option("--enable", metavar="CHANNEL", help="Let a channel that answered 410 deliver again, and exit."),
    ] = "",
    close: Annotated[
        int, typer.Option("--close", metavar="NUMBER", help="End the alerts of an open finding, and exit.")
    ] = 0,
    reason: Annotated[str, typer.Option("--reason", help="With --close: why, for the record.")] = "",
) -> None:
    """Run the alerts until SIGTERM or Ctrl-C: findings go to Alertmanager and webhooks, none twice and none left out.

    One process a deployment. What waits is in the outbox in the data folder, and goes on at the next start.

    Exit codes: 0 stopped when asked, 1 the outbox cannot be used (start it again), 2 a setting, the configuration or
    an option is wrong.
    """
    settings = settings_of(context)
    with told(), _outbox_errors(EXIT_USAGE if list_ or enable or close else EXIT_DEPENDENCY):
        if json_ and not list_:
            raise SettingsError("--json goes with --list")
        if list_:
            status = read_status(settings.alert_outbox_path, time.time())
            typer.echo(as_json(status)) if json_ else _show(status)
        elif enable:
            _enable(settings, enable)
        elif close:
            _close(settings, close, reason)
        else:
            _run(settings)


def _run(settings: Settings) -> None:
    config = _config(settings)
    cluster, deployment = settings.cluster(), settings.require_deployment()
    try:
        routes = build_routes(config)
    except AlertConfigError as error:
        raise SettingsError(str(error)) from error
    alerting = Alerting(
        cluster,
        deployment,
        settings.alert_outbox_path,
        routes,
        first_start_hours=config.first_start_hours,
        keep=config.keep_days * 86_400,
    )
    lock = OutboxLock(settings.alert_outbox_path)  # first: a second process must not take the first one's place
    try:
        with serving("alert", settings):
            on_stop_signal(alerting.stop)
            alerting.run()
    finally:
        lock.release()


def _enable(settings: Settings, channel: str) -> None:
    known = [one["name"] for one in read_status(settings.alert_outbox_path, time.time())["channels"]]
    if channel not in known:
        raise SettingsError(f"there is no channel {channel}; there are {', '.join(known) or 'none'}")
    with closing(Outbox(settings.alert_outbox_path, [])) as outbox:
        typer.echo(f"{channel} is enabled" if outbox.enable(channel, time.time()) else f"{channel} was not disabled")


def _close(settings: Settings, number: int, reason: str) -> None:
    if not reason.strip():
        raise SettingsError("--close needs --reason")
    read_status(settings.alert_outbox_path, time.time())  # says so where there is none
    try:
        routes = build_routes(_config(settings))
    except AlertConfigError as error:
        raise SettingsError(str(error)) from error
    with closing(Outbox(settings.alert_outbox_path, routes)) as outbox:
        if not outbox.close_finding(number, _who(), reason.strip()[:500], time.time()):
            raise SettingsError(f"no open finding has the number {number}: see grantledger alert --list")
    typer.echo(f"finding {number} is closed")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _config(settings: Settings) -> AlertConfig:
    if settings.alert_config is None:
        raise SettingsError("no channels: set GRANTLEDGER_ALERT_CONFIG to the TOML file that names them")
    try:
        return load_config(settings.alert_config)
    except AlertConfigError as error:
        raise SettingsError(str(error)) from error


@contextmanager
def _outbox_errors(code: int) -> Iterator[None]:
    try:
        yield
    except OutboxError as error:
        complain(str(error))
        raise typer.Exit(code) from error


def _show(status: dict[str, Any]) -> None:
    console = wide_console()
    channels = Table("channel", "kind", "state", "pending", "oldest", "given up", "last delivery", "last failure")
    for one in status["channels"]:
        oldest, failed = one["oldest_pending_seconds"], one["last_failure"]
        channels.add_row(
            one["name"],
            one["kind"],
            f"disabled: {one['disabled_why']}" if one["disabled_at"] else one["state"],
            str(one["pending"]),
            span(oldest) if oldest is not None else "",
            str(one["given_up"]),
            moment(one["last_delivery"]) if one["last_delivery"] else "never",
            shortened(f"{moment(failed)} {one['last_failure_detail']}", 60) if failed else "",
        )
    console.print(channels)
    alerts = Table("number", "rule", "severity", "key", "subject", "resource", "deadline", "opened", "channels")
    for one in status["open"]:
        alerts.add_row(
            str(one["number"]),
            shortened(one["rule"], 30),
            shortened(one["severity"], 10),
            shortened(one["key"], 40),
            shortened(one["subject"], 30),
            shortened(one["resource"], 30),
            one["deadline"][:19].replace("T", " "),
            moment(one["opened_at"]),
            ", ".join(f"{channel} {told['state']}" for channel, told in one["told"].items()),
        )
    console.print(alerts)
    for one in status["failures"][:5]:
        console.print(
            shortened(f"{moment(one['at'])} {one['channel']}: {one['detail']}, {len(one['messages'])} messages", 160),
            markup=False,
        )
