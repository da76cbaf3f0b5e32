"""The signed heads that the store holds, checked with the public key: the store itself is not trusted."""

from __future__ import annotations

from collections.abc import Collection

from ...ledger.keys import LogKeys
from ...ledger.note import NoteError, open_checkpoint, open_sealed_checkpoint
from ...sinks.clickhouse import Ask
from .plan import IN_STORE, EpochRefusedError, KnownHead

_LAST = """
SELECT origin, `index`, note, hex(leaf_hash) AS leaf FROM entries
WHERE startsWith(origin, {log:String}) AND notEmpty(note)
ORDER BY length(origin) DESC, origin DESC, `index` DESC LIMIT 2
"""
_NOTES = "SELECT `index`, note FROM entries WHERE origin = {origin:String} AND `index` IN {indices:Array(UInt64)}"
_TOPIC_ID = "SELECT hex(topic_id) AS id FROM origins WHERE origin = {origin:String}"


def stored_head(ask: Ask, keys: LogKeys, log: str, sizes: Collection[int]) -> KnownHead | None:
    """Return the last head of a log in the store, with its roots at the given sizes.

    Args:
        log: the origin without the epoch.

    Raises:
        EpochRefusedError: the last checkpoint does not verify.
    """
    rows = ask(_LAST, log=f"{log}/")
    if not rows:
        return None
    last, before = rows[0], rows[1] if len(rows) > 1 and rows[1]["origin"] == rows[0]["origin"] else None
    origin, size = last["origin"], last["index"] + 1
    try:
        first_index = before["index"] + 1 if before is not None else 0
        key, leaf = keys.at(origin, size), bytes.fromhex(last["leaf"])
        head, facts = open_sealed_checkpoint(last["note"], key, first_index, leaf)
        if (head.origin, head.size) != (origin, size):
            raise NoteError(f"the checkpoint at {origin} index {size - 1} is that of another entry")
        indices = [one - 1 for one in sizes if 0 < one <= size]
        notes = ask(_NOTES, origin=origin, indices=indices) if indices else []
        roots = {
            row["index"] + 1: open_checkpoint(row["note"], keys.at(origin, row["index"] + 1)).root
            for row in notes
            if row["note"]
        }
    except NoteError as error:
        raise EpochRefusedError(f"the store's last head of {log} does not verify: {error}") from error
    topic_ids = ask(_TOPIC_ID, origin=origin)
    topic_id = bytes.fromhex(topic_ids[0]["id"]) if topic_ids else None
    return KnownHead(IN_STORE, head, facts.next_offset, topic_id, roots, complete_from=0)
