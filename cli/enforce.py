"""``grantledger enforce``: run the enforcer."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ..base.errors import EXIT_STOPPED
from ..enforcers.core import Backoff, Breaker
from ..enforcers.enforcer import Enforcer
from ..enforcers.engine import EnforcingStoppedError, Limits
from ..enforcers.journal import close_breaker as close
from ..enforcers.plugins import build_plugins
from ..enforcers.policy import PolicyError, load_policy
from ..runtime.logs import configure_logs
from ..runtime.process import complain, on_stop_signal, serving
from ..runtime.settings import Settings, SettingsError
from ..runtime.wiring import known_schemas
from ..schemas.catalog import SchemaCatalog
from .running import settings_of, told


def command(
    context: typer.Context,
    carry_out: Annotated[
        bool, typer.Option("--carry-out", help="Act. Without it, say only what would be taken away.")
    ] = False,
    close_breaker: Annotated[
        str | None,
        typer.Option("--close-breaker", metavar="REASON", help="Close the breaker, put the reason on record, exit."),
    ] = None,
) -> None:
    """Run the enforcer until SIGTERM or Ctrl-C: take access away as the commands in access.commands say.

    One process a deployment: a second one takes the first one's place.

    Exit codes: 0 stopped when asked, 1 lost its brokers or its place (start it again), 2 a setting or the policy is
    wrong, 3 the breaker is open and a person must look.
    """
    settings = settings_of(context)
    with told():
        if close_breaker is not None:
            _close_breaker(settings, close_breaker.strip())
            return
        enforcer = _enforcer(settings, carry_out or settings.enforce_carry_out)
        with serving("enforce", settings):
            on_stop_signal(enforcer.stop)
            try:
                enforcer.run()
            except EnforcingStoppedError as error:
                complain(str(error))
                raise typer.Exit(EXIT_STOPPED) from error


def _enforcer(settings: Settings, carry_out: bool) -> Enforcer:
    cluster, deployment = settings.cluster(), settings.require_deployment()
    if settings.enforce_config is None:
        raise SettingsError("no policy: set GRANTLEDGER_ENFORCE_CONFIG to the enforcer's TOML file")
    try:
        policy = load_policy(settings.enforce_config)
        plugins = build_plugins(policy, deployment)
    except PolicyError as error:
        raise SettingsError(str(error)) from error
    limits = Limits(
        settings.enforce_attempts,
        _breaker(settings),
        Backoff(policy.backoff_seconds, policy.backoff_cap_seconds),
        timedelta(seconds=policy.max_age_seconds),
    )
    return Enforcer(
        cluster,
        deployment,
        policy,
        plugins,
        limits,
        catalog=_catalog(settings),
        carry_out=carry_out,
        now=_now,
    )


def _close_breaker(settings: Settings, reason: str) -> None:
    if not reason:
        # An empty variable in somebody's script; what it must not do is start the enforcer.
        raise SettingsError("--close-breaker needs the reason, which goes on record")
    configure_logs(settings.log_level, settings.log_format)
    was_open = close(
        settings.cluster(),
        settings.require_deployment(),
        _breaker(settings),
        catalog=_catalog(settings),
        now=_now,
        who=_who(),
        why=reason,
    )
    typer.echo("the breaker is closed" if was_open else "the breaker was not open")


def _breaker(settings: Settings) -> Breaker:
    return Breaker(settings.enforce_max_per_window, timedelta(seconds=settings.enforce_window_seconds))


def _catalog(settings: Settings) -> SchemaCatalog:
    # What an earlier version wrote must be known too: it says what has been done.
    return SchemaCatalog(known_schemas(settings))


def _now() -> datetime:
    return datetime.now(UTC)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
