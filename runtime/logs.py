"""Structured log lines on standard error. They carry names and numbers, never a payload and never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog


def configure_logs(level: str, shape: Literal["json", "text"]) -> None:
    """Set up structlog for a process.

    Args:
        level: least severe level that is printed: debug, info, warning or error.
        shape: ``json``: one object a line for programs; ``text``: for people.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if shape == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
