"""Whether the anchors topic lost anchors: the anchor log must never begin again, or continue from an older anchor."""

from __future__ import annotations

from collections.abc import Mapping

from ..kafka.offsets import committed_offset, end_offset, first_offset
from ..kafka.records import last_record
from ..kafka.sealed_log import SealedLogs
from ..ledger.anchor import Anchor, AnchorError, anchor_log, decode_receipt
from ..ledger.entry import epoch_of, split_origin
from ..schemas.topics import ANCHORS_TOPIC, RECEIPTS_TOPIC, store_group


def lost_anchors(logs: SealedLogs, last: Anchor | None, copies: Mapping[str, Anchor]) -> list[str]:
    """Return the traces of anchors that the anchors topic does not have.

    Args:
        last: the last valid anchor in the topic.
        copies: the last verified anchor of each copy: the targets, and the store where it can be read.
    """
    cluster, traces = logs.cluster, []
    committed = committed_offset(cluster, store_group(logs.deployment), ANCHORS_TOPIC, 0)  # before the end, which moves
    begin, end = first_offset(cluster, ANCHORS_TOPIC, 0), end_offset(cluster, ANCHORS_TOPIC, 0)
    for place, anchor in copies.items():
        if split_origin(anchor.origin)[0] == anchor_log(logs.deployment) and _is_later(anchor, last):
            traces.append(f"{place} holds anchor {anchor.index} of {anchor.origin}")
    if committed > end:
        traces.append(f"the store has read anchors up to offset {committed}, and the topic ends at {end}")
    if last is not None:
        return traces
    if committed > 0 and committed <= end:
        traces.append("the store has read anchors from it")
    if begin > 0:
        traces.append(f"its first offset is {begin}")
    if (receipt := _last_receipt(logs)) is not None:
        traces.append(receipt)
    return traces


def _last_receipt(logs: SealedLogs) -> str | None:
    message = last_record(logs.cluster, RECEIPTS_TOPIC, 0)
    try:
        receipt = decode_receipt(message.value() or b"") if message is not None else None
    except AnchorError:
        return None
    if receipt is None or not receipt.origin.startswith(f"{anchor_log(logs.deployment)}/"):
        return None
    return f"{RECEIPTS_TOPIC} has a receipt for anchor {receipt.index} of {receipt.origin}"


def _is_later(anchor: Anchor, last: Anchor | None) -> bool:
    return last is None or (epoch_of(anchor.origin), anchor.index) > (epoch_of(last.origin), last.index)
