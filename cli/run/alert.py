"""``grantledger run alert``."""

from __future__ import annotations

from ...base.toml import load_toml
from ...runtime.process import run_process
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings, SettingsError
from ...schemas.own_sources import ALERT
from ...sinks.alerts.channel_builder import build_channels
from ...sinks.alerts.config import AlertConfig
from ...sinks.alerts.database import lock_outbox
from ...sinks.alerts.service import Alerting


def command(settings: Settings) -> None:
    """Deliver findings to Alertmanager and webhooks, each at least once, with an id for deduplication.

    Run one per deployment. Undelivered alerts are in an outbox in the data folder, and a restart continues with them;
    `grantledger channels` lists them.

    Exit codes: 0 stopped on request; 1 the outbox cannot be used: restart it; 2 a setting or the channels' file is
    wrong; 3 the sealed log of findings is discontinuous: an alert reports it, and a person must investigate.
    """
    if settings.alert_config is None:
        raise SettingsError("there are no alert channels: set GRANTLEDGER_ALERT_CONFIG to the TOML file that has them")
    config = load_toml(settings.alert_config, AlertConfig)
    logs = sealed_logs(settings, ALERT)
    channels = build_channels(config)
    with lock_outbox(settings.alert_outbox_path):  # before anything else: a second process must not fence the first
        alerting = Alerting(
            logs,
            settings.alert_outbox_path,
            channels,
            first_start_hours=config.first_start_hours,
            keep=config.keep_days * 86_400,
            storm_after=config.storm_after,
        )
        run_process("alert", settings, alerting.run, alerting.stop)
