"""``grantledger run alert``."""

from __future__ import annotations

from ...base.errors import EXIT_DEPENDENCY
from ...runtime.configuration import alert_config
from ...runtime.process import on_stop_signal, serving
from ...runtime.settings import Settings, SettingsError
from ...sinks.alerts.config import AlertConfigError
from ...sinks.alerts.database import OutboxError, OutboxLock
from ...sinks.alerts.routes import build_routes
from ...sinks.alerts.service import Alerting
from ..errors import fail


def command(settings: Settings) -> None:
    """Deliver findings to Alertmanager and webhooks: each at least once, with an id that receivers deduplicate by.

    Run one per deployment. Undelivered alerts are in the outbox in the data folder and continue after a restart;
    `grantledger channels` lists them.

    Exit codes: 0 stopped on request; 1 the outbox cannot be used: restart it; 2 a setting or the channels' file is
    wrong.
    """
    config = alert_config(settings)
    cluster, deployment = settings.cluster(), settings.require_deployment()
    try:
        routes = build_routes(config)
    except AlertConfigError as error:
        raise SettingsError(str(error)) from error
    try:
        lock = OutboxLock(settings.alert_outbox_path)  # before anything else: a second process must not fence the first
    except OutboxError as error:
        fail(str(error), EXIT_DEPENDENCY)
    try:
        alerting = Alerting(
            cluster,
            deployment,
            settings.alert_outbox_path,
            routes,
            first_start_hours=config.first_start_hours,
            keep=config.keep_days * 86_400,
        )
        with serving("alert", settings):
            on_stop_signal(alerting.stop)
            alerting.run()
    except OutboxError as error:
        fail(str(error), EXIT_DEPENDENCY)
    finally:
        lock.release()
