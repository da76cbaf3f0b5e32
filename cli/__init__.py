"""The command line: one small module a command, put together here. A command is imported only when it is asked for."""

from __future__ import annotations

import os

# Nothing here multiplies matrices; numpy's library for it would start a thread a processor, in every process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .app import main

__all__ = ["main"]
