"""How long after Kafka has an activation the views of grants show it.

    python -m benchmarks.freshness [--grants N] [--rate N] [--commands N] [--seconds N]

A real broker, sealer, store and watch, and a ledger that has N grants already. Then activations and session commands
arrive at steady rates. An analyst asks again and again which of the new grants are shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from confluent_kafka import Message, Producer
from rich.console import Console

from grantledger.console.address import read_address
from grantledger.runtime.broker import LocalBroker
from grantledger.schemas.event import ACTIVITY_TOPIC, LIFECYCLE_TOPIC

from .load import encoded_events
from .queries import Analyst
from .results import save
from .sizing import Sizing
from .watch import many

ASK_EVERY = 0.25
"""Seconds between two questions, which is the error of a measurement."""


def analyst_of(folder: Path) -> Analyst:
    """Return an analyst at the SQL endpoint of a store."""
    address = read_address(folder)
    if address is None:
        raise RuntimeError(f"{folder}: the store answers no queries")
    return Analyst(address, address.analyst)


def shown_among(analyst: Analyst, grants: list[str]) -> list[str]:
    """Return those of some grants that the view ``grants`` shows."""
    listed = ", ".join(f"'{grant}'" for grant in grants)
    return analyst.ask(f"SELECT grant_id FROM grants WHERE grant_id IN ({listed})")[0]


def measure(sizing: Sizing, rate: float, commands: float, seconds: float) -> list[float]:
    """Send at these rates per second, and return the seconds from each acknowledgment until the grant is shown."""
    producer = Producer(sizing.options | {"acks": "all", "linger.ms": 5})
    template = next(many(1))[1]
    placeholder = next(many(1))[0]
    acknowledged: dict[str, float] = {}
    waiting: dict[str, float] = {}
    delays: list[float] = []

    def noted(error: object, message: Message) -> None:
        if error is None:
            grant = (message.key() or b"").decode()
            acknowledged[grant] = waiting[grant] = time.monotonic()

    analyst, activity = analyst_of(sizing.folder), itertools.cycle(encoded_events(10_000))
    began = asked = time.monotonic()
    sent_grants = sent_commands = 0
    while (now := time.monotonic()) < began + seconds or waiting or len(acknowledged) < sent_grants:
        if now < began + seconds:
            while sent_grants < (now - began) * rate:
                grant = str(uuid.UUID(int=(1 << 100) + sent_grants)).encode()
                producer.produce(LIFECYCLE_TOPIC, template.replace(placeholder, grant), grant, on_delivery=noted)
                sent_grants += 1
            while sent_commands < (now - began) * commands:
                key, value = next(activity)
                producer.produce(ACTIVITY_TOPIC, value, key)
                sent_commands += 1
        producer.poll(0.02)
        if waiting and now >= asked + ASK_EVERY:
            asked = now
            for grant in shown_among(analyst, list(waiting)):
                delays.append(time.monotonic() - waiting.pop(grant))
    return delays


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grants", type=int, default=100_000, help="that the ledger has before")
    parser.add_argument("--rate", type=float, default=10, help="activations per second")
    parser.add_argument("--commands", type=float, default=100, help="session commands per second")
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    console = Console(highlight=False, width=120)
    with tempfile.TemporaryDirectory(prefix="grantledger-bench-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        with LocalBroker(folder / "kafka") as broker:
            sizing = Sizing(folder, broker)
            sizing.start()
            try:
                with console.status(f"{options.grants:,} grants"):
                    sizing.send(LIFECYCLE_TOPIC, many(options.grants))
                    sizing.settle(LIFECYCLE_TOPIC)
                with console.status(f"{options.seconds:.0f} seconds of new events"):
                    delays = sorted(measure(sizing, options.rate, options.commands, options.seconds))
            finally:
                sizing.stop()
    result = {
        **vars(options),
        "shown": len(delays),
        "p50_s": statistics.median(delays),
        "p99_s": delays[int(0.99 * len(delays))],
        "worst_s": delays[-1],
    }
    console.print(json.dumps(result))
    save(result, "bench-freshness.json", console)


if __name__ == "__main__":
    main()
