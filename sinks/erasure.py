"""Erasure by law: empty the payload and decoded columns of the entries that sealed ``payload.erased`` events name.

Views hold no data of their own, so ``entries`` is the only table that contains payloads. Hashes and the row stay, and
the ledger still verifies (docs/ledger.md).
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from clickhouse_connect.driver.client import Client

from ..base.health import HEALTH, LONG_SECONDS
from ..ledger.entry import split_entry_name
from ..schemas.arrow import DECODED, ERASED, DecodedColumn
from ..schemas.event import FINDINGS_TOPIC, NEVER_ERASED

log = structlog.get_logger("grantledger.store")

_ON_RECORD = """
SELECT subject_id FROM entries
WHERE startsWith(origin, {prefix:String}) AND event_type = 'payload.erased' AND decode_error = ''
    AND signature NOT IN ('missing', 'invalid')
"""
_STORED = """
SELECT `index`, event_type, erased_at IS NOT NULL FROM entries
WHERE origin = {origin:String} AND `index` IN {indices:Array(UInt64)}
"""


class Erasures:
    """Erasures on record that are not carried out yet.

    Every start compares the stored rows with all erasures on record, and so makes up for a crash.
    """

    def __init__(self, client: Client, deployment: str) -> None:
        self._deployment, self._prefix = deployment, f"{deployment}/{FINDINGS_TOPIC}/0/"
        self._pending: dict[str, set[int]] = {}
        rows = client.query(_ON_RECORD, parameters={"prefix": self._prefix}).result_rows
        self._add([str(subject) for (subject,) in rows])
        self._apply(client)

    def follow(self, table: pa.Table, client: Client) -> None:
        """Carry out the erasures that a batch, now stored, contains, and those of its own entries.

        An entry may be stored after its erasure, because the logs are stored independently of each other.
        """
        if self._concerns(table):
            self._apply(client)

    def _concerns(self, table: pa.Table) -> bool:
        origin, indices = table.column("origin")[0].as_py(), table.column("index")
        if origin.startswith(self._prefix):
            chosen = pc.equal(table.column("event_type"), b"payload.erased")
            from ..ledger.decoded_entries import believed_rows  # the SQL endpoint imports only names from here

            chosen = pc.and_(chosen, pa.array(believed_rows(table)))
            subjects = table.filter(chosen).column("subject_id").to_pylist()
            if subjects:
                self._add([subject.decode("utf-8", "replace") for subject in subjects])
                return True
        first, last = indices[0].as_py(), indices[-1].as_py()
        return any(first <= index <= last for index in self._pending.get(origin, ()))

    def _apply(self, client: Client) -> None:
        """Erase every pending entry that is stored; the others stay pending. Repeating it changes nothing."""
        for origin, wanted in list(self._pending.items()):
            found = client.query(_STORED, parameters={"origin": origin, "indices": sorted(wanted)}).result_rows
            erasable = []
            for index, event_type, erased in found:
                if not erased and event_type in NEVER_ERASED:
                    log.error("erasure_refused", origin=origin, index=index, event_type=event_type)
                elif not erased:
                    erasable.append(index)
            if erasable:
                HEALTH.turned(within=LONG_SECONDS)
                client.command(
                    f"ALTER TABLE entries UPDATE {_EMPTIED} "
                    "WHERE origin = {origin:String} AND `index` IN {indices:Array(UInt64)}",
                    parameters={"origin": origin, "indices": erasable},
                    settings={"mutations_sync": 2},
                )
                log.info("payloads_erased", origin=origin, indices=erasable)
            wanted.difference_update(row[0] for row in found)
            if not wanted:
                del self._pending[origin]

    def _add(self, subjects: list[str]) -> None:
        for subject in subjects:
            try:
                origin, index = split_entry_name(subject)
            except ValueError:
                log.error("erasure_without_entry", subject=subject)
                continue
            if origin.startswith(self._deployment + "/"):
                self._pending.setdefault(origin, set()).add(index)
            else:
                log.error("erasure_of_another_deployment", subject=subject)


def _empty(column: DecodedColumn) -> str:
    """Return the SQL of the value that stands for nothing in a decoded column."""
    if pa.types.is_timestamp(column.type) and not column.nullable:
        return "fromUnixTimestamp64Micro(0, 'UTC')"
    if pa.types.is_boolean(column.type) and not column.nullable:
        return "false"
    if pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return "NULL"
    if pa.types.is_list(column.type):
        return "[]"
    return "toFixedString('', 32)" if pa.types.is_fixed_size_binary(column.type) else "''"


_VALUES = {
    "key": "NULL",
    "value": "NULL",
    "headers": "''",
    "erased_at": "now64(6, 'UTC')",
    "decode_error": f"'{ERASED}'",
    "signature": "''",
    **{column.name: _empty(column) for column in DECODED},
}
ERASED_COLUMNS = tuple(_VALUES)
"""The columns that an erasure changes: the only ones of ``entries`` that the store ever changes."""
_EMPTIED = ", ".join(f"{name} = {value}" for name, value in _VALUES.items())
