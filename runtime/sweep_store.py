"""How the sweep reads the store: what ``processors/sweep`` may not import, passed in from here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from ..processors.sweep.sweeper import Ask
from ..sinks.clickhouse import StoreUnavailableError
from .reading import live, reading
from .settings import Settings


class SweepStore:
    """The store of a deployment, as the sweep reads it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def is_live(self) -> bool:
        """Whether something writes to the store now."""
        return live(self._settings)

    @contextmanager
    def open(self) -> Iterator[Ask]:
        """Open the store for reading.

        Raises:
            StoreUnavailableError: the store does not answer, or refuses.
        """
        try:
            with reading(self._settings) as client:

                def ask(sql: str, **values: object) -> list[dict[str, Any]]:
                    return list(client.query(sql, parameters=values).named_results())

                yield ask
        except ClickHouseError as error:
            raise StoreUnavailableError(str(error).split("\n", 1)[0][:500]) from error
