"""A coverage-guided campaign over the paths of `support.fuzz_paths`, for atheris (which no test needs):

    pip install atheris
    PYTHONPATH=tests nice -n 10 python tests/fuzz/campaign.py SECONDS

It starts from the corpus, keeps what it finds in build/fuzz, and stops at the first crash. The file ``crash-…`` there
is the input: copy it into the corpus, which the tests run, and mend the fault.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
INSTRUMENTED = [
    "grantledger.schemas", "grantledger.processors.watch", "grantledger.enforcers", "grantledger.sinks.alerts",
    "grantledger.cli.output", "second_verifier",
]  # fmt: skip

with atheris.instrument_imports(include=INSTRUMENTED):
    from support.fuzz_paths import CATALOG, follow

PREFIXES = [bytes(schema.prefix) for schema in CATALOG]


def one(data: bytes) -> None:
    """Send the input as a value, and as the datum of an event."""
    follow([data, PREFIXES[0] + data])


def main(seconds: int) -> None:
    """Run for so many seconds."""
    found = ROOT / "build" / "fuzz"
    found.mkdir(parents=True, exist_ok=True)
    corpus = ROOT / "tests" / "fuzz" / "corpus"
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", f"-artifact_prefix={found}/"]
    atheris.Setup([sys.argv[0], *options, str(found), str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]))
