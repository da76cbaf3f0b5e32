"""Writers of native records, by tool."""

from __future__ import annotations

from ..lifecycle import Tool
from .cloudtrail import CloudTrailWriter
from .deploy_bot import DeployBotWriter
from .hoop import HoopWriter
from .teleport import TeleportWriter
from .vault import VaultWriter
from .writer import RecordWriter

WRITERS: dict[Tool, type[RecordWriter]] = {
    "teleport": TeleportWriter,
    "vault": VaultWriter,
    "hoop": HoopWriter,
    "cloudtrail": CloudTrailWriter,
    "emit": DeployBotWriter,
}
