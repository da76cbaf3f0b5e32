"""Which of our errors means what to the person or supervisor who sees the exit code."""

from __future__ import annotations

from ..processors.anchor import AnchoringStoppedError
from ..processors.resume import SealingStoppedError
from ..processors.seal import SealerLostError
from ..producers.registry import RegistryError
from ..schemas.kafka import KafkaUnavailableError
from ..sinks.clickhouse import StoreUnavailableError
from ..sinks.follow import StoringStoppedError
from ..sinks.migrate import MigrationError
from .broker_config import BrokerError
from .java import RuntimeUnavailable
from .keys import KeyUnavailableError
from .process import EXIT_LOST, EXIT_STOPPED, EXIT_USAGE
from .settings import SettingsError
from .topics import TopicError

EXIT_CODES: dict[type[Exception], int] = {
    SettingsError: EXIT_USAGE,
    KeyUnavailableError: EXIT_USAGE,
    RuntimeUnavailable: EXIT_USAGE,
    TopicError: EXIT_USAGE,
    KafkaUnavailableError: EXIT_LOST,
    StoreUnavailableError: EXIT_LOST,
    RegistryError: EXIT_LOST,
    BrokerError: EXIT_LOST,
    SealerLostError: EXIT_LOST,
    SealingStoppedError: EXIT_STOPPED,
    StoringStoppedError: EXIT_STOPPED,
    AnchoringStoppedError: EXIT_STOPPED,
    MigrationError: EXIT_STOPPED,
}
"""Errors that are told in one line, without a traceback, and the exit code of each."""
