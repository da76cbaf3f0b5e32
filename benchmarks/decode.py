"""The cost of decoding bad data, as ratios to good data in the same run: ``python -m benchmarks.decode``.

Every kind of bad record replaces 1, 50 and 100 % of a batch of good ones, at places drawn at random. CPU time per
entry; the best of several turns. Writes build/decode.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from grantledger.schemas.arrow import decode_values
from grantledger.schemas.catalog import SchemaCatalog, event_schema
from grantledger.schemas.codec import DecodeError, decode

from .load import encoded_events

ROOT = Path(__file__).resolve().parents[1]
HEAD = 10
"""Bytes of the framing."""
SHARES = (1, 50, 100)
TAIL = 49
"""Bytes of an event after its last variable part: null, the hash, the salt."""


def in_the_id(number: bytes) -> Callable[[bytes], bytes]:
    """Return what replaces the length of the event's id."""
    return lambda value: value[:HEAD] + number + value[HEAD + 1 :]


def args_of(value: bytes, count: bytes) -> bytes:
    """Replace the count of the arguments ``-c`` and ``select …``."""
    at = value.index(b"\x04\x04-c")
    return value[:at] + count + value[at + 1 :]


def with_texts(value: bytes) -> bytes:
    """Give an event a thousand empty arguments more."""
    return args_of(value, b"\xd0\x0f" + bytes(1000) + b"\x04")


BAD: dict[str, Callable[[bytes], bytes]] = {
    "cut in the middle": lambda value: value[: len(value) // 2],
    "cut at the last byte": lambda value: value[:-1],
    "wrong fingerprint": lambda value: value[:2] + b"\xff" * 8 + value[HEAD:],
    "unknown framing": lambda value: b"{" + value,
    "empty value": lambda _: b"",
    "overlong number": in_the_id(b"\xff" * 30),
    "negative length": in_the_id(b"\x01"),
    "huge length": in_the_id(b"\xfe" + b"\xff" * 8 + b"\x01"),
    "huge block count": lambda value: args_of(value, b"\xfe" + b"\xff" * 8 + b"\x01"),
    "negative block count": lambda value: args_of(value, b"\x03\x7e"),
    "least block count": lambda value: args_of(value, b"\xff" * 9 + b"\x01\x00\x04"),
    "many empty blocks": lambda value: args_of(value, (b"\xff" * 9 + b"\x01\x00") * 20 + b"\x04"),
    "not UTF-8": lambda value: value[: HEAD + 1] + b"\xff" * 36 + value[HEAD + 37 :],
    "odd boolean": lambda value: value.replace(b"\x02\x00\x00\x00", b"\x02\x00\x02\x02", 1)[:-TAIL] + b"\x02" * TAIL,
    "bytes after the datum": lambda value: value + b"more" * 10,
    "zeros": lambda value: value[:HEAD] + bytes(len(value) - HEAD),
    "noise": lambda value: value[:HEAD] + random.Random(value).randbytes(len(value) - HEAD),
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    catalog = SchemaCatalog((event_schema(),))
    good = [value for _, value in encoded_events(options.entries)]
    base = cost(good, catalog, options.turns)
    single = cost_of_single(good[:1000], catalog, options.turns)
    table = Table("record", *(f"{share} %" for share in SHARES), "one at a time")
    found: dict[str, list[float]] = {}
    cases = [(kind, good, [change(value) for value in good]) for kind, change in BAD.items()]
    long_lists = [with_texts(value) for value in good]
    cases.append(("1,000 empty texts, cut", long_lists, [value[:-1] for value in long_lists]))
    for kind, intact, bad in cases:
        compared = base if intact is good else cost(intact, catalog, options.turns)
        ratios = [cost(mixed(intact, bad, share), catalog, options.turns) / compared for share in SHARES]
        alone = single if intact is good else cost_of_single(intact[:1000], catalog, options.turns)
        ratios.append(cost_of_single(bad[:1000], catalog, options.turns) / alone)
        found[kind] = [round(ratio, 2) for ratio in ratios]
        table.add_row(kind, *(f"{ratio:.2f}" for ratio in ratios))
    console = Console(highlight=False)
    console.print(f"good data: {base * 1e6:.2f} µs per entry in batches, {single * 1e6:.1f} µs one at a time")
    console.print(table)
    worst = max(max(ratios[:3]) for ratios in found.values())
    console.print(f"worst ratio in batches: {worst:.2f}")
    target = ROOT / "build" / "decode.json"
    target.parent.mkdir(exist_ok=True)
    result = {"batch_us": base * 1e6, "single_us": single * 1e6, "ratios": found, "shares": [*SHARES, "single"]}
    target.write_text(json.dumps(result, indent=2) + "\n")


def mixed(good: list[bytes], bad: list[bytes], share: int) -> list[bytes]:
    """Replace a share of the good records, in percent."""
    chosen = set(random.Random(share).sample(range(len(good)), len(good) * share // 100))
    return [bad[at] if at in chosen else value for at, value in enumerate(good)]


def cost(values: list[bytes], catalog: SchemaCatalog, turns: int) -> float:
    """Return CPU seconds per entry of decoding a batch, the best of several turns."""
    array = pa.array(values, pa.binary())
    times = [0] * len(values)
    return min(timed(lambda: decode_values(array, times, catalog)) for _ in range(turns)) / len(values)


def cost_of_single(values: list[bytes], catalog: SchemaCatalog, turns: int) -> float:
    """Return CPU seconds per entry of decoding one at a time, as enforcers and alerts do."""
    return min(timed(lambda: decode_all(values, catalog)) for _ in range(turns)) / len(values)


def decode_all(values: list[bytes], catalog: SchemaCatalog) -> None:
    """Decode values one at a time."""
    for value in values:
        try:
            decode(value, catalog, 0)
        except (DecodeError, ValueError):
            continue


def timed(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
