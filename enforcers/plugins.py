"""From the policy to plug-ins."""

from __future__ import annotations

from .contract import Plugin
from .exec_ import ExecPlugin
from .policy import ExecTarget, Policy, PolicyError, WebhookTarget
from .webhook import WebhookPlugin


def build_plugins(policy: Policy, deployment: str) -> dict[str, Plugin]:
    """Return the plug-in of each target, by its name in the policy. Reads every secret, contacts nobody.

    Raises:
        PolicyError: a secret is missing, or what a plug-in needs is not installed; names the target.
    """
    plugins: dict[str, Plugin] = {}
    for name, target in policy.targets.items():
        try:
            if isinstance(target, WebhookTarget):
                plugins[name] = WebhookPlugin(target, deployment)
            elif isinstance(target, ExecTarget):
                plugins[name] = ExecPlugin(target)
            else:
                # Only those who use it need the database's client.
                from .postgresql import PostgresqlPlugin

                plugins[name] = PostgresqlPlugin(target)
        except PolicyError as error:
            raise PolicyError(f"targets.{name}: {error}") from None
        except ImportError as error:
            raise PolicyError(f"targets.{name} needs {error.name}: pip install 'grantledger[enforce]'") from None
    return plugins
