"""The user who runs this process, for the record."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Return the name of the user who ran the command, through sudo or not."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user of a container, without a name
        return f"uid {os.getuid()}"
