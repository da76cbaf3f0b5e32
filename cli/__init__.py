"""The command line: one small module a command, put together here. A command is imported only when it is asked for."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
