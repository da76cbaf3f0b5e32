"""Every setting of grantledger, in one typed place.

A setting comes, first found wins, from the command line, from the environment (``GRANTLEDGER_`` and the upper-case
name, for example ``GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS``), from a TOML file (``--config`` or ``GRANTLEDGER_CONFIG``),
and from what a running local stack wrote into its data folder.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from ..base.errors import UsageError

if TYPE_CHECKING:
    from ..kafka.cluster import Cluster

DEFAULT_DATA_DIR = Path("data")
STACK_FILE = Path("run") / "stack.json"
DEPLOYMENT_FILE = Path("deployment")

_SECRET_OPTION = re.compile(r"password|secret|token|pem$|key$|jaas|credential|oauthbearer\.config", re.IGNORECASE)
"""Options of librdkafka and clickhouse-connect whose value nobody should read over a shoulder."""
_USERINFO = re.compile(r"://[^/@\s]*@")


class SettingsError(UsageError):
    """A setting is missing or wrong; the message names it and says what to do."""


class Settings(BaseSettings):
    """All settings. The description of each is its documentation; ``grantledger settings`` prints them."""

    model_config = SettingsConfigDict(env_prefix="GRANTLEDGER_", extra="forbid", frozen=True)

    data_dir: Path = Field(DEFAULT_DATA_DIR, description="Folder of the keys, the local stack and the embedded store.")
    deployment: str = Field(
        "",
        max_length=150,
        pattern=r"^[a-z0-9.-]*$",
        description="Name of this deployment, unique in the world: the first part of every log's origin. "
        "The local stack makes one up with a random suffix.",
    )
    kafka_bootstrap_servers: str = Field("", description="Kafka brokers, host:port, comma-separated.")
    kafka_options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Options passed to librdkafka as they are, for TLS and SASL: a TOML table, or JSON in the "
        'environment. Example: {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}.',
    )
    kafka_sasl_password: SecretStr = Field(
        SecretStr(""), description="Password for SASL, kept out of kafka_options so that it never shows."
    )
    kafka_replication: int = Field(
        0,
        ge=0,
        le=9,
        description="Replication factor of topics that are created; 0: 3, or 1 where there is one broker.",
    )
    topic_prefix: str = Field(
        "",
        max_length=150,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Stands before the name of every topic, so that several deployments can share a Kafka cluster.",
    )
    schema_registry_url: str = Field(
        "", description="Confluent-compatible schema registry. When set, events are framed with its schema ids."
    )
    schema_registry_user: str = Field("", description="User at the schema registry, where it wants one.")
    schema_registry_password: SecretStr = Field(SecretStr(""), description="Password at the schema registry.")
    activity_partitions: int = Field(4, ge=1, le=256, description="Partitions of access.activity when it is created.")
    payload_retention_days: int = Field(0, ge=0, description="How long sealed topics keep their batches; 0: for ever.")
    clickhouse_url: str = Field(
        "", description="ClickHouse server, http(s)://host:port. Empty: the embedded engine in the data folder."
    )
    clickhouse_user: str = Field("default", description="User at the ClickHouse server.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="Password at the ClickHouse server.")
    clickhouse_database: str = Field("audit", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Database of the store.")
    clickhouse_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments passed to clickhouse_connect.get_client as they are, for example ca_cert or verify.",
    )
    key_file: Path | None = Field(
        None,
        description="Ed25519 private key of the logs, PKCS#8 PEM, mode 0600. Default: keys/log.pem in the data folder.",
    )
    public_key_file: Path | None = Field(
        None,
        description="Public key of the logs, PEM. Every process that reads sealed topics needs it. Default: beside the "
        "private key, with the suffix .pub.",
    )
    key_passphrase: SecretStr | None = Field(None, description="Passphrase of the private key.")
    key_passphrase_file: Path | None = Field(
        None, description="File whose first line is the passphrase of the private key."
    )
    sealer_instance: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of this sealer among several. Two with one name fence each other off.",
    )
    seal_linger_seconds: float = Field(
        1.0,
        ge=0.0,
        le=60.0,
        description="Longest time an entry of access.activity waits for company before its batch is sealed; what "
        "deadlines are judged by waits for 0.2 at most.",
    )
    head_restate_seconds: float = Field(
        86_400.0, ge=1.0, description="An idle log restates its signed head this often."
    )
    anchor_interval_seconds: float = Field(60.0, ge=0.1, description="Time between anchors.")
    anchor_targets: tuple[Literal["file"], ...] = Field(("file",), description="Where anchors are written outside.")
    anchor_file: Path | None = Field(
        None,
        description="Append-only file of the target 'file'. Default: anchors.jsonl in the data folder; put it on "
        "other storage.",
    )
    watch_instance: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of this watch process within its group. Two processes with one name fence each other off.",
    )
    watch_policy: Path | None = Field(
        None, description="TOML file with the watch policy: grace, longest access, approvals, evidence of removal."
    )
    watch_lag_bound_seconds: float = Field(
        300.0,
        ge=1.0,
        le=86_400.0,
        description="If sealing lags longer than this, the watch judges anyway and marks findings as unconfirmed.",
    )
    watch_snapshot_seconds: float = Field(
        300.0,
        ge=0.1,
        le=86_400.0,
        description="Time between snapshots of the watch. After a start it reads the log from the last snapshot.",
    )
    watch_keep_days: int = Field(
        30,
        ge=1,
        le=3650,
        description="How many days the watch keeps grants and sessions after their end. Later records count as new.",
    )
    alert_config: Path | None = Field(
        None, description="TOML file with the channels that alerts go to: Alertmanager and webhooks."
    )
    alert_outbox: Path | None = Field(
        None,
        description="SQLite file in which alerts wait until they are delivered. Default: alerts/outbox.sqlite3 in the "
        "data folder; on a local disk.",
    )
    sweep_interval_seconds: float = Field(60.0, ge=1.0, le=86_400.0, description="Time between sweeps.")
    enforce_config: Path | None = Field(
        None, description="TOML file with the enforcer's policy: which access is taken away where, and how."
    )
    enforce_carry_out: bool = Field(
        False,
        description="Whether the enforcer acts. Without it a dry run only says what would be taken away.",
    )
    enforce_max_per_window: int = Field(
        20,
        ge=1,
        le=100_000,
        description="How many revocations the enforcer begins in a window; one more opens its breaker, and it stops "
        "until a person closes it.",
    )
    enforce_window_seconds: float = Field(3600.0, ge=1.0, le=604_800.0, description="Length of the enforcer's window.")
    enforce_attempts: int = Field(
        5, ge=1, le=100, description="How often the enforcer tries one revocation before it gives it up."
    )
    kafka_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Loopback port of the local Kafka; 0: any free port. Default: the port that the data folder had "
        "before, or 19092, or any free port if that is taken.",
    )
    sql_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Loopback port of the SQL endpoint of the embedded store; 0: any free port. Default: 18123, or any "
        "free port if that is taken.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address on which a process serves its Prometheus metrics. For a Prometheus on another machine, an "
        "address of this one, or 0.0.0.0; metrics contain names and numbers, but anybody who reaches them can read "
        "them.",
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of the Prometheus metrics; 0: any free port, which the log names."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["json", "text"] = Field("json", description="Shape of log lines on standard error.")

    @field_validator("kafka_options")
    @classmethod
    def _no_secret_in_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "sasl.password" in options:
            raise ValueError("give the password as kafka_sasl_password, which is never printed")
        return options

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources: arguments, environment, the TOML file."""
        del dotenv_settings, file_secret_settings
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if config := os.environ.get("GRANTLEDGER_CONFIG"):
            sources += (TomlConfigSettingsSource(settings_cls, Path(config)),)
        return sources

    def kafka_client_options(self) -> dict[str, Any]:
        """Return the librdkafka options that every client of ours starts from.

        Raises:
            SettingsError: no broker is named.
        """
        if not self.kafka_bootstrap_servers:
            raise SettingsError(
                "no Kafka broker: set GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS, or name the data folder of a running local "
                f"stack with --data (looked for {self.data_dir / STACK_FILE})"
            )
        options: dict[str, Any] = {"bootstrap.servers": self.kafka_bootstrap_servers, **self.kafka_options}
        if password := self.kafka_sasl_password.get_secret_value():
            options["sasl.password"] = password
        return options

    def cluster(self) -> Cluster:
        """Return the Kafka cluster of this deployment.

        Raises:
            SettingsError: no broker is named.
        """
        from ..kafka.cluster import Cluster

        return Cluster(self.kafka_client_options(), self.topic_prefix)

    def require_deployment(self) -> str:
        """Return the deployment's name.

        Raises:
            SettingsError: it is not set.
        """
        if not self.deployment:
            raise SettingsError("no deployment name: set GRANTLEDGER_DEPLOYMENT, for example prod.example.com")
        return self.deployment

    def shown(self, name: str) -> str:
        """Return a setting's value for people to read: empty where there is none, and never a secret."""
        value = getattr(self, name)
        if isinstance(value, SecretStr):
            return "(secret)" if value.get_secret_value() else ""
        if isinstance(value, dict):
            safe = {key: "(secret)" if _SECRET_OPTION.search(key) else item for key, item in value.items()}
            return json.dumps(safe, default=str) if safe else ""
        if isinstance(value, tuple):
            return ", ".join(value)
        return "" if value is None else _USERINFO.sub("://(secret)@", str(value))

    @property
    def private_key_path(self) -> Path:
        """Where the private key of the logs is."""
        return self.key_file or self.data_dir / "keys" / "log.pem"

    @property
    def public_key_path(self) -> Path:
        """Where the public key of the logs is."""
        return self.public_key_file or self.private_key_path.with_suffix(".pub")

    @property
    def store_path(self) -> Path:
        """Folder of the embedded store."""
        return self.data_dir / "clickhouse"

    @property
    def anchor_path(self) -> Path:
        """File of the anchor target ``file``."""
        return self.anchor_file or self.data_dir / "anchors.jsonl"

    @property
    def alert_outbox_path(self) -> Path:
        """File of the alerts' outbox."""
        return self.alert_outbox or self.data_dir / "alerts" / "outbox.sqlite3"


def load_settings(data_dir: Path | None = None, config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings from all their sources.

    Args:
        data_dir: the data folder, when the command line names one.
        config: a TOML file, when the command line names one.
        overrides: settings that the command line gives; None is left out.

    Raises:
        SettingsError: a setting is unknown or wrong, or the file cannot be read; names the setting.
    """
    if config is not None:
        os.environ["GRANTLEDGER_CONFIG"] = str(config)
    given = {name: value for name, value in overrides.items() if value is not None}
    if data_dir is not None:
        given["data_dir"] = data_dir
    if (path := os.environ.get("GRANTLEDGER_CONFIG")) and not Path(path).is_file():
        raise SettingsError(f"the settings file {path} does not exist (--config or GRANTLEDGER_CONFIG)")
    try:
        settings = Settings(**given)
        found = read_deployment(settings.data_dir) | read_stack(settings.data_dir)
        missing = {
            name: value
            for name, value in found.items()
            if name in Settings.model_fields and not getattr(settings, name)
        }
        return Settings(**(given | missing)) if missing else settings
    except ValidationError as error:
        lines = [f"{_name(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_input=False)]
        raise SettingsError("\n".join(lines)) from None
    except OSError as error:
        raise SettingsError(f"the settings file {error.filename} cannot be read: {error.strerror}") from None
    except ValueError as error:  # the TOML file does not parse, or JSON in the environment
        raise SettingsError(f"settings: {error}") from None


def _name(loc: tuple[int | str, ...]) -> str:
    return f"GRANTLEDGER_{str(loc[0]).upper()}" if loc else "settings"


def read_deployment(data_dir: Path) -> dict[str, Any]:
    """Return the deployment that the data folder belongs to, if a local stack has ever run there."""
    try:
        return {"deployment": (data_dir / DEPLOYMENT_FILE).read_text("utf-8").strip()}
    except OSError:
        return {}


def read_stack(data_dir: Path) -> dict[str, Any]:
    """Return what the running local stack wrote about itself; nothing where none runs."""
    try:
        stack: dict[str, Any] = json.loads((data_dir / STACK_FILE).read_text("utf-8"))
        os.kill(int(stack["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return {}
    except PermissionError:  # it runs, as another user
        return stack
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SettingsError(f"{data_dir / STACK_FILE} cannot be read: {error}") from error
    return stack
