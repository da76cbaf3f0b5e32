"""``grantledger channels``: the channels that alerts go to."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated, Any

import typer
from rich.console import Console

from ..base.errors import EXIT_USAGE
from ..base.toml import load_toml
from ..runtime.settings import Settings
from ..sinks.alerts.config import AlertConfig
from ..sinks.alerts.outbox import Outbox
from ..sinks.alerts.status import outbox_status
from .config_file import ConfigFile
from .errors import exit_code, fail, suggestion
from .output import Column, Format, Output, echo, print_table, shortened, span, text_column

_SHOWN_FAILURES = 5


def list_command(settings: Settings, output: Output) -> None:
    """List the alert channels, their undelivered alerts and their failures. JSON and YAML also have the open alerts.

    Exit codes: 0 listed; 2 there is no outbox yet, or it cannot be read.
    """
    status = _status(settings)
    if output.quiet or output.format is Format.csv:
        output.rows(status["channels"], identity="name", show=[])
    else:
        output.record(status, lambda console: _print(console, output, status))


def enable(
    settings: Settings,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Name of the channel.")],
) -> None:
    """Resume the deliveries of a channel that was disabled because its receiver answered 410 Gone.

    Exit codes: 0 enabled, or it was not disabled; 2 there is no such channel or no outbox.
    """
    known = [each["name"] for each in _status(settings)["channels"]]
    if channel not in known:
        fail(f"there is no channel {channel}; there are {', '.join(known) or 'none'}{suggestion(channel, known)}")
    with exit_code(EXIT_USAGE), closing(Outbox(settings.alert_outbox_path, [])) as outbox:
        enabled = outbox.enable(channel, time.time())
    echo(f"{channel} is enabled" if enabled else f"{channel} was not disabled")


def check(
    settings: Settings,
    output: Output,
    file: ConfigFile = None,
) -> None:
    """Check a file with alert channels, and show which findings each channel gets. Nothing is sent.

    Each error is named with file and line. Secrets are not read.

    Exit codes: 0 the file is valid; 2 it is not, or it cannot be read.
    """
    path = file or settings.alert_config
    if path is None:
        fail("give a FILE, or set GRANTLEDGER_ALERT_CONFIG")
    rows = [
        {
            "name": name, "kind": channel.kind, "url": channel.url, "min_severity": channel.min_severity,
            "rules": list(channel.rules),
        }
        for name, channel in load_toml(path, AlertConfig).channels.items()
    ]  # fmt: skip
    columns = [
        text_column("channel", "name"),
        text_column("kind", "kind"),
        text_column("url", "url"),
        text_column("from severity", "min_severity"),
        Column("rules", lambda row: ", ".join(row["rules"])),
    ]
    output.rows(rows, identity="name", show=columns)


def _status(settings: Settings) -> dict[str, Any]:
    with exit_code(EXIT_USAGE):
        return outbox_status(settings.alert_outbox_path, time.time())


def _print(console: Console, output: Output, status: dict[str, Any]) -> None:
    columns = [
        text_column("channel", "name"),
        text_column("kind", "kind"),
        Column("state", lambda row: f"disabled: {row['disabled_why']}" if row["disabled_at"] else row["state"]),
        text_column("pending", "pending"),
        Column("oldest", lambda row: span(row["oldest_pending_seconds"]) if row["pending"] else ""),
        text_column("given up", "given_up"),
        Column("last delivery", lambda row: output.moment(row["last_delivery"]) or "never"),
        Column(
            "last failure",
            lambda row: shortened(f"{output.moment(row['last_failure'])} {row['last_failure_detail']}".strip(), 60),
        ),
    ]
    print_table(console, status["channels"], columns)
    alerts = [
        text_column("rule", "rule"),
        text_column("severity", "severity"),
        text_column("key", "key"),
        text_column("subject", "subject"),
        text_column("resource", "resource"),
        Column("opened", lambda row: output.moment(row["opened_at"])),
        Column("channels", lambda row: ", ".join(f"{name} {each['state']}" for name, each in row["channels"].items())),
    ]
    if status["open"]:
        print_table(console, status["open"], alerts)
    for each in status["failures"][:_SHOWN_FAILURES]:
        line = f"{output.moment(each['at'])} {each['channel']}: {each['detail']}, {len(each['messages'])} messages"
        console.print(shortened(line, 160), markup=False)
