"""``grantledger run seal``."""

from __future__ import annotations

from ...processors.registrar import register_schemas
from ...processors.seal import Sealer, SealerConfig
from ...runtime.event_schemas import writer_schemas
from ...runtime.keys import load_signers
from ...runtime.process import on_stop_signal, serving
from ...runtime.sealed_logs import sealed_logs
from ...runtime.settings import Settings
from ...schemas.own_sources import SEALER


def command(settings: Settings) -> None:
    """Chain and sign every record in partition order.

    Several may run, each with its own GRANTLEDGER_SEALER_INSTANCE; they share the partitions. A new ledger is created
    with `grantledger init`, never by the sealer.

    Exit codes: 0 stopped on request; 1 lost Kafka or was fenced off: restart it; 2 a setting is wrong; 3 the ledger
    contradicts Kafka: a person must investigate.
    """
    signers = load_signers(settings)
    logs = sealed_logs(settings, SEALER, signers.keys)
    with serving("seal", settings):
        register_schemas(logs, writer_schemas(settings))
        config = SealerConfig(
            instance=settings.sealer_instance,
            linger=settings.seal_linger_seconds,
            restate=settings.head_restate_seconds,
        )
        sealer = Sealer(logs, config, signers)
        on_stop_signal(sealer.stop)
        sealer.run()
