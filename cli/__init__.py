"""The command line: one module per command, imported when the command is invoked."""

from __future__ import annotations

import os

# numpy's matrix library would start a thread per processor in every process; nothing here multiplies matrices.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .app import main

__all__ = ["main"]
