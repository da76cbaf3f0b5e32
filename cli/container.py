"""What is different for people in a container of our image: they reach it through Docker, and all are one user."""

from __future__ import annotations

import os
import socket
from pathlib import Path

IMAGE_DATA_DIR = "/data"
IMAGE_USER = 10001
"""As deploy/Dockerfile sets them."""


def in_container() -> bool:
    """Whether people run commands here through Docker or Podman, in a container of our image."""
    marked = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return marked and os.environ.get("GRANTLEDGER_DATA_DIR") == IMAGE_DATA_DIR


def container() -> str:
    """Return the name by which Docker finds this container."""
    return socket.gethostname()


def how_to_stop() -> str:
    """Return the sentence about the end of a stack in the foreground. A container has no keyboard where it runs."""
    return f"`docker stop {container()}` drains and stops." if in_container() else "Ctrl-C drains and stops."


def needed_user(error: BaseException) -> str:
    """Return the end of the message about a file that this user must not use; empty outside of a container."""
    if not in_container() or not _is_about_permission(error):
        return ""
    if (user := os.geteuid()) == IMAGE_USER:
        return f" (this container runs as user {IMAGE_USER}: the file or folder must belong to that user id)"
    return f" (this container runs as user {user}, and its image is made for user {IMAGE_USER}: leave out --user)"


def _is_about_permission(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, PermissionError):
        error = error.__cause__ or error.__context__
    return error is not None
