"""Sends events to the ledger: the client library, the event constructors, file import and the tool adapters.

Example::

    from grantledger.producers import Client, Resource, grant_activated

    with Client({"bootstrap.servers": "kafka:9092"}, system="deploy-bot", instance="eu-1") as client:
        client.send(
            grant_activated(
                subject="alice",
                resource=Resource("database", "orders"),
                entitlement="readwrite",
                expires_at=datetime.now(UTC) + timedelta(hours=1),
            )
        )
"""

from ..schemas.event import Action, Actor, Approval, Event, EventSource, Resource, Subject
from ..schemas.rules import InvalidEventError
from .client import Client, ClientError, Delivery, DeliveryError, EventTooLargeError, QueueFullError
from .constructors import (
    grant_activated,
    grant_expired,
    grant_extended,
    grant_failed,
    grant_revoked,
    policy_changed,
    request_approved,
    request_cancelled,
    request_created,
    request_denied,
    request_expired,
    session_command,
    session_denied,
    session_ended,
    session_query,
    session_recording_failed,
    session_started,
)
from .options import OptionError
from .redaction.file import make_redactor
from .redaction.redactor import Redactor
from .registry import RegistryError, SchemaRegistry

__all__ = [
    "Action",
    "Actor",
    "Approval",
    "Client",
    "ClientError",
    "Delivery",
    "DeliveryError",
    "Event",
    "EventSource",
    "EventTooLargeError",
    "InvalidEventError",
    "OptionError",
    "QueueFullError",
    "Redactor",
    "RegistryError",
    "Resource",
    "SchemaRegistry",
    "Subject",
    "grant_activated",
    "grant_expired",
    "grant_extended",
    "grant_failed",
    "grant_revoked",
    "make_redactor",
    "policy_changed",
    "request_approved",
    "request_cancelled",
    "request_created",
    "request_denied",
    "request_expired",
    "session_command",
    "session_denied",
    "session_ended",
    "session_query",
    "session_recording_failed",
    "session_started",
]
