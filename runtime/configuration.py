"""The TOML files that settings name: the alert channels and the enforcement policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from ..enforcers.core import Breaker
    from ..enforcers.policy import Policy as EnforcementPolicy
    from ..sinks.alerts.config import AlertConfig


def alert_config(settings: Settings) -> AlertConfig:
    """Return the alert channels."""
    from ..sinks.alerts.config import AlertConfigError, load_config

    if settings.alert_config is None:
        raise SettingsError("there are no alert channels: set GRANTLEDGER_ALERT_CONFIG to the TOML file that has them")
    try:
        return load_config(settings.alert_config)
    except AlertConfigError as error:
        raise SettingsError(str(error)) from error


def enforcement_policy(settings: Settings) -> EnforcementPolicy:
    """Return the policy of the enforcer."""
    from ..enforcers.policy import PolicyError, load_policy

    if settings.enforce_config is None:
        raise SettingsError("there is no enforcement policy: set GRANTLEDGER_ENFORCE_CONFIG to its TOML file")
    try:
        return load_policy(settings.enforce_config)
    except PolicyError as error:
        raise SettingsError(str(error)) from error


def breaker_limits(settings: Settings) -> Breaker:
    """Return when the enforcer's breaker opens."""
    from datetime import timedelta

    from ..enforcers.core import Breaker

    return Breaker(settings.enforce_max_per_window, timedelta(seconds=settings.enforce_window_seconds))
