"""What the commands that send events share: a client from the settings, and plain words for what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from ..producers.client import Client, ClientError, DeliveryError, QueueFullError
from ..producers.options import OptionError
from ..producers.registry import RegistryError, SchemaRegistry

if TYPE_CHECKING:
    from ..runtime.settings import Settings

NOT_ALL_TAKEN = 1
"""Exit code: some input was refused, the rest is in Kafka."""
NOT_SENT = 2
"""Exit code: events could not be sent, or the command could not start."""


def fail(message: str, code: int = NOT_SENT) -> NoReturn:
    """Say what is wrong on standard error and exit."""
    typer.echo(f"grantledger: {message}", err=True)
    raise typer.Exit(code)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings that the application has read, or read them."""
    from ..runtime.settings import Settings, SettingsError, load_settings

    if isinstance(context.obj, Settings):
        return context.obj
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error))


def open_client(context: typer.Context, *, system: str | None = None, instance: str = "default") -> Client:
    """Return a client for the brokers in the settings; exits where they are missing or wrong."""
    from ..runtime.settings import SettingsError

    settings = settings_of(context)
    try:
        registry = None
        if settings.schema_registry_url:
            registry = SchemaRegistry(
                settings.schema_registry_url,
                username=settings.schema_registry_user or None,
                password=settings.schema_registry_password.get_secret_value() or None,
            )
        return Client(
            settings.kafka_client_options(),
            system=system,
            instance=instance,
            registry=registry,
            topic_prefix=settings.topic_prefix,
        )
    except (SettingsError, OptionError, ClientError, RegistryError) as error:
        fail(str(error))


@contextmanager
def reporting() -> Iterator[None]:
    """Turn what the client raises into a message and exit code 2."""
    try:
        yield
    except (ClientError, RegistryError) as error:
        fail(plain(error))


def plain(error: Exception) -> str:
    """Return what the client raised as a sentence that names the setting to look at."""
    return f"{error} (kafka_bootstrap_servers)" if isinstance(error, DeliveryError | QueueFullError) else str(error)
