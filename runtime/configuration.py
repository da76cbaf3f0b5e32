"""The TOML files that settings name: the alert channels and the enforcement policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from ..enforcers.core import Breaker
    from ..enforcers.policy import EnforcementPolicy
    from ..sinks.alerts.config import AlertConfig


def alert_config(settings: Settings) -> AlertConfig:
    """Return the alert channels."""
    from ..base.toml import load_toml
    from ..sinks.alerts.config import AlertConfig

    if settings.alert_config is None:
        raise SettingsError("there are no alert channels: set GRANTLEDGER_ALERT_CONFIG to the TOML file that has them")
    return load_toml(settings.alert_config, AlertConfig)


def enforcement_policy(settings: Settings) -> EnforcementPolicy:
    """Return the policy of the enforcer."""
    from ..base.toml import load_toml
    from ..enforcers.policy import EnforcementPolicy

    if settings.enforce_config is None:
        raise SettingsError("there is no enforcement policy: set GRANTLEDGER_ENFORCE_CONFIG to its TOML file")
    return load_toml(settings.enforce_config, EnforcementPolicy)


def breaker_limits(settings: Settings) -> Breaker:
    """Return when the enforcer's breaker opens."""
    from datetime import timedelta

    from ..enforcers.core import Breaker

    return Breaker(settings.enforce_max_per_window, timedelta(seconds=settings.enforce_window_seconds))
