"""The facts of a sealed batch, as the watch decodes them."""

from __future__ import annotations

from collections.abc import Iterator

from grantledger.ledger.batch import SealedBatch
from grantledger.ledger.source_keys import SourceKeys
from grantledger.processors.naming import NO_NAMING, Naming
from grantledger.processors.watch.core.facts import Fact
from grantledger.processors.watch.decoding import decode_batch, facts_from
from grantledger.schemas.catalog import SchemaCatalog


def facts_of(
    batch: SealedBatch, catalog: SchemaCatalog, naming: Naming = NO_NAMING, sources: SourceKeys | None = None
) -> Iterator[Fact]:
    """Yield the facts of a batch of ``access.lifecycle``."""
    return facts_from(decode_batch(batch, catalog, source_keys=lambda _: sources or SourceKeys("")).rows, naming)
