"""``grantledger run enforce``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ...base.toml import load_toml
from ...enforcers.command_loop import Enforcer
from ...enforcers.command_rules import Backoff, Breaker, Limits
from ...enforcers.enforcement_policy import EnforcementPolicy
from ...enforcers.plugins import build_plugins
from ...runtime.event_schemas import schema_catalog
from ...runtime.process import run_process
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings, SettingsError
from ...schemas.own_sources import ENFORCER


def command(
    settings: Settings,
    carry_out: Annotated[
        bool, typer.Option("--carry-out", help="Revoke. Without it, only report what would be revoked.")
    ] = False,
) -> None:
    """Revoke access, following the commands in access.commands.

    Run one per deployment: a second one fences off the first.

    Exit codes: 0 stopped on request; 1 lost Kafka or was fenced off: restart it; 2 a setting or the policy is wrong;
    3 a sealed log is discontinuous: run `grantledger verify --from kafka`.
    """
    logs = sealed_logs(settings, ENFORCER)
    if settings.enforce_config is None:
        raise SettingsError("there is no enforcement policy: set GRANTLEDGER_ENFORCE_CONFIG to its TOML file")
    policy = load_toml(settings.enforce_config, EnforcementPolicy)
    plugins = build_plugins(policy, logs.deployment)
    limits = Limits(
        settings.enforce_attempts,
        Breaker(settings.enforce_max_per_window, timedelta(seconds=settings.enforce_window_seconds)),
        Backoff(policy.backoff_seconds, policy.backoff_cap_seconds),
        timedelta(seconds=policy.max_age_seconds),
    )
    enforcer = Enforcer(
        logs,
        policy,
        plugins,
        limits,
        catalog=schema_catalog(settings),
        carry_out=carry_out or settings.enforce_carry_out,
        now=lambda: datetime.now(UTC),
    )
    run_process("enforce", settings, enforcer.run, enforcer.stop)
