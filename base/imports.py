"""Packages that our processes do without."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, *_context: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("our processes do without pandas", name=name)


def without_pandas() -> None:
    """Let imports of pandas fail in this process. For our own programs, not for programs that import ours.

    pyarrow and clickhouse-connect import pandas where it is installed, to handle objects of it that we never have.
    That takes 0.4 s of CPU time and 40 MB of memory in every process.
    """
    sys.meta_path.insert(0, _NoPandas())
