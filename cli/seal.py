"""``grantledger seal``: run a sealer."""

from __future__ import annotations

import typer

from ..processors.registrar import register_schemas
from ..processors.seal import Sealer, SealerConfig
from ..runtime.process import on_stop_signal, serving
from ..runtime.wiring import prepare_signer, writer_schemas
from .running import settings_of, told


def command(context: typer.Context) -> None:
    """Run a sealer until SIGTERM or Ctrl-C: it chains and signs every record in partition order.

    Several may run, each with its own GRANTLEDGER_SEALER_INSTANCE; they share the partitions. On its first start in a
    new deployment it makes the key pair; over an existing ledger it never does.

    Exit codes: 0 stopped when asked, 1 lost its brokers or its place (start it again), 2 a setting is wrong, 3 the
    ledger contradicts what Kafka holds and a person must look.
    """
    settings = settings_of(context)
    with told():
        cluster, deployment = settings.cluster(), settings.require_deployment()
        signer = prepare_signer(settings, cluster)
        with serving("seal", settings):
            register_schemas(cluster, deployment, writer_schemas(settings))
            config = SealerConfig(
                deployment,
                instance=settings.sealer_instance,
                linger=settings.seal_linger_seconds,
                restate=settings.head_restate_seconds,
            )
            sealer = Sealer(cluster, config, signer)
            on_stop_signal(sealer.stop)
            sealer.run()
