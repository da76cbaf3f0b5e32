"""Our processes do without what only takes memory and time."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from grantledger.base.imports import without_pandas
without_pandas()
import numpy as np, pyarrow as pa
assert pa.array(np.arange(3)).to_numpy().tolist() == [0, 1, 2]
assert pa.array([b"a"], pa.binary()).to_numpy(zero_copy_only=False).tolist() == [b"a"]
sys.exit("pandas" in sys.modules)
"""


def test_arrays_are_made_without_pandas() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
