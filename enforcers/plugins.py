"""Builds the plug-ins of a policy."""

from __future__ import annotations

from ..base.toml import ConfigError
from .contract import Plugin
from .enforcement_policy import EnforcementPolicy, ExecTarget, WebhookTarget
from .exec_ import ExecPlugin
from .webhook import WebhookPlugin


def build_plugins(policy: EnforcementPolicy, deployment: str) -> dict[str, Plugin]:
    """Return the plug-in of each target by name. Reads all secrets and connects to nothing."""
    plugins: dict[str, Plugin] = {}
    for name, target in policy.targets.items():
        key = f"targets.{name}"
        if isinstance(target, WebhookTarget):
            plugins[name] = WebhookPlugin(target, deployment, key)
        elif isinstance(target, ExecTarget):
            plugins[name] = ExecPlugin(target, key)
        else:
            try:
                # Only this plug-in needs the database client.
                from .postgresql import PostgresqlPlugin
            except ImportError as error:
                raise ConfigError(f"{key} needs {error.name}: pip install 'grantledger[enforce]'") from None
            plugins[name] = PostgresqlPlugin(target, key)
    return plugins
