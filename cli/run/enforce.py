"""``grantledger run enforce``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ...enforcers.core import Backoff
from ...enforcers.enforcer import Enforcer
from ...enforcers.engine import Limits
from ...enforcers.plugins import build_plugins
from ...runtime.configuration import breaker_limits, enforcement_policy
from ...runtime.process import on_stop_signal, serving
from ...runtime.settings import Settings
from ...runtime.wiring import known_schemas, sealed_logs
from ...schemas.catalog import SchemaCatalog


def command(
    settings: Settings,
    carry_out: Annotated[
        bool, typer.Option("--carry-out", help="Revoke. Without it, only report what would be revoked.")
    ] = False,
) -> None:
    """Revoke access as the commands in access.commands demand.

    Run one per deployment: a second one fences off the first.

    Exit codes: 0 stopped on request; 1 lost Kafka or was fenced off: restart it; 2 a setting or the policy is wrong;
    3 the breaker is open: look into it, then `grantledger breaker close --reason …`.
    """
    logs = sealed_logs(settings)
    policy = enforcement_policy(settings)
    plugins = build_plugins(policy, logs.deployment)
    limits = Limits(
        settings.enforce_attempts,
        breaker_limits(settings),
        Backoff(policy.backoff_seconds, policy.backoff_cap_seconds),
        timedelta(seconds=policy.max_age_seconds),
    )
    enforcer = Enforcer(
        logs,
        policy,
        plugins,
        limits,
        catalog=SchemaCatalog(known_schemas(settings)),
        carry_out=carry_out or settings.enforce_carry_out,
        now=lambda: datetime.now(UTC),
    )
    with serving("enforce", settings):
        on_stop_signal(enforcer.stop)
        enforcer.run()
