"""A coverage-guided campaign over the adapters and envelopes, for atheris (which no test needs):

    pip install atheris
    PYTHONPATH=tests nice -n 10 python tests/fuzz/adapters.py SECONDS SAMPLES

It starts from the records in the folder SAMPLES, keeps what it finds in build/fuzz-adapters, and stops at the first
crash. The file ``crash-…`` there is the input: mend the fault, and add a test of the adapter with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

FOUND = Path(__file__).resolve().parents[2] / "build" / "fuzz-adapters"

with atheris.instrument_imports(include=["grantledger.producers", "grantledger.schemas"]):
    from support.fuzz_adapters import read_by_all, seeds


def main(seconds: int, samples: Path) -> None:
    """Run for so many seconds."""
    FOUND.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(seeds(samples)):
        (FOUND / f"seed-{number:05}").write_bytes(record)
    options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=20", f"-artifact_prefix={FOUND}/"]
    atheris.Setup([sys.argv[0], *options, str(FOUND)], read_by_all)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
