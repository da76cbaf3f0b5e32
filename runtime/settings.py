"""All settings, from the command line, the environment, a TOML file and the running local stack, in this order."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from ..base.errors import UsageError
from ..base.toml import ConfigError, load_toml
from .stack_file import FROM_STACK, STACK_FILE, read_deployment, read_stack

if TYPE_CHECKING:
    from ..kafka.cluster import Cluster

PREFIX = "GRANTLEDGER_"
_TYPES = {"dict_type": "must be a JSON object", "tuple_type": "must be a JSON list"}
DEFAULT_DATA_DIR = Path("data")

_SECRET_OPTION = re.compile(r"password|secret|token|pem$|key$|jaas|credential|oauthbearer\.config", re.IGNORECASE)
"""Options of librdkafka and clickhouse-connect whose values are secrets."""
_USERINFO = re.compile(r"://[^/@\s]*@")


class SettingsError(UsageError):
    """A setting is missing or wrong; the message names it and the remedy."""


class Settings(BaseModel):
    """All settings. ``grantledger settings`` and docs/settings.md show their descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path = Field(
        DEFAULT_DATA_DIR, description="Folder with the keys, the local stack and the embedded store."
    )
    config: Path | None = Field(None, description="TOML file with settings, instead of --config.")
    deployment: str = Field(
        "",
        max_length=150,
        pattern=r"^[a-z0-9.-]*$",
        description="Globally unique name of this deployment: the first part of the origin of every log. The local "
        "stack generates one with a random suffix.",
    )
    kafka_bootstrap_servers: str = Field("", description="Kafka brokers, host:port, comma-separated.")
    kafka_options: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        description="Options for librdkafka, such as those for TLS and SASL: a TOML table, or JSON in the "
        'environment. Example: {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}.',
    )
    kafka_sasl_password: SecretStr = Field(
        SecretStr(""), description="Password for SASL. It is not in kafka_options, so that it is never printed."
    )
    kafka_replication: int = Field(
        0, ge=0, le=9, description="Replication factor of new topics; 0: 3, or 1 with a single broker."
    )
    topic_prefix: str = Field(
        "",
        max_length=150,
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Prefix of every topic name, so that several deployments can share a Kafka cluster.",
    )
    schema_registry_url: str = Field(
        "", description="URL of a Confluent-compatible schema registry. If set, events carry its schema ids."
    )
    schema_registry_user: str = Field("", description="User for the schema registry, if it requires one.")
    schema_registry_password: SecretStr = Field(SecretStr(""), description="Password for the schema registry.")
    lifecycle_shards: int = Field(
        1, ge=1, le=64, description="Number of partitions of access.lifecycle, which tenants are distributed over. "
        "Fixed by `init`; all processes and senders of a deployment need the same value.",
    )  # fmt: skip
    activity_partitions: int = Field(4, ge=1, le=256, description="Number of partitions of a new access.activity.")
    payload_retention_days: int = Field(
        0, ge=0, description="How long sealed topics keep their batches, except access.findings; 0: forever."
    )
    query_retention_days: int = Field(0, ge=0, description="The same for access.queries.sealed: statements of people.")
    clickhouse_url: str = Field(
        "", description="ClickHouse server, http(s)://host:port. Empty: the embedded engine in the data folder."
    )
    clickhouse_user: str = Field("default", description="User for the ClickHouse server.")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="Password for the ClickHouse server.")
    clickhouse_database: str = Field("audit", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Database of the store.")
    clickhouse_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of clickhouse_connect.get_client, for example ca_cert or verify.",
    )
    store_memory_mb: int = Field(
        4096,
        ge=1024,
        le=500_000,
        description="Memory in MiB that `run store` may use: for the rows on their way into ClickHouse and, if that is "
        "embedded, for the engine with all queries. Beyond it, queries fail and inserts are repeated.",
    )
    key_file: Path | None = Field(
        None,
        description="Ed25519 private key of the logs, PKCS#8 PEM, mode 0600. Default: keys/log.pem in the data folder.",
    )
    public_key_file: Path | None = Field(
        None,
        description="Public keys of the logs, PEM. Every process that reads sealed topics needs them. Default: beside "
        "the private key, with the suffix .pub.",
    )
    key_passphrase: SecretStr | None = Field(None, description="Passphrase of the private key.")
    key_passphrase_file: Path | None = Field(
        None, description="File whose first line is the passphrase of the private key."
    )
    source_key_folder: Path | None = Field(
        None,
        description="Folder with the private keys by which the pipeline's own sources sign their events, one file "
        "each. A process needs its own file and grantledger-reader.pem. Default: keys/sources in the data folder.",
    )
    source_key_file: Path | None = Field(
        None,
        description="Private key by which `emit`, `import` and `follow` sign, 0600, from `grantledger sources add`.",
    )
    source_key_passphrase_file: Path | None = Field(
        None, description="File whose first line is the passphrase of source keys."
    )
    sealer_instance: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of this sealer among several. Two with the same name fence each other off.",
    )
    seal_linger_seconds: float = Field(
        1.0,
        ge=0.0,
        le=60.0,
        description="Longest time that an entry of access.activity waits for its batch. Entries that deadlines depend "
        "on wait 0.2 s at most.",
    )
    head_restate_seconds: float = Field(
        86_400.0, ge=1.0, description="Time after which an idle log restates its signed head."
    )
    anchor_interval_seconds: float = Field(60.0, ge=0.1, description="Time between anchors.")
    anchor_targets: tuple[Literal["file"], ...] = Field(
        ("file",), description="Targets outside the pipeline that anchors are written to."
    )
    anchor_file: Path | None = Field(
        None,
        description="Append-only file of the target 'file'. Default: anchors.jsonl in the data folder. In production, "
        "put it where the operators of Kafka and ClickHouse cannot write.",
    )
    watch_instance: str = Field(
        "0",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Name of this watch process within its group. Two with the same name fence each other off.",
    )
    watch_shard: int = Field(
        0, ge=0, le=63, description="Partition of access.lifecycle that this watch process judges: each needs a watch."
    )
    watch_policy: Path | None = Field(
        None, description="TOML file with the watch policy: grace, longest access, approvals, evidence of removal."
    )
    watch_lag_bound_seconds: float = Field(
        300.0,
        ge=1.0,
        le=86_400.0,
        description="If sealing lags more than this, the watch judges deadlines anyway and marks its findings as "
        "unconfirmed.",
    )
    watch_snapshot_seconds: float = Field(
        300.0, ge=0.1, le=86_400.0, description="Time between snapshots of the watch. After a start, it replays the "
        "log from the last snapshot.",
    )  # fmt: skip
    watch_keep_days: int = Field(
        30, ge=1, le=3650, description="Days that the watch keeps grants and sessions after their end. Later records "
        "of them count as new.",
    )  # fmt: skip
    alert_config: Path | None = Field(None, description="TOML file with the alert channels: Alertmanager and webhooks.")
    alert_outbox: Path | None = Field(
        None,
        description="SQLite file with undelivered alerts, on a local disk. Default: alerts/outbox.sqlite3 in the data "
        "folder.",
    )
    redaction: Literal["off", "default", "strict"] = Field(
        "default",
        description="What every way in removes from records before they are hashed: off nothing, default secrets, "
        "strict also personal data: docs/redaction.md. Each source of the gateway and of `follow` may have its own.",
    )
    redaction_rules: Path | None = Field(None, description="TOML file with further rules of redaction.")
    gateway_config: Path | None = Field(None, description="TOML file of the gateway: its address, sources and tokens.")
    sweep_interval_seconds: float = Field(60.0, ge=1.0, le=86_400.0, description="Time between sweeps.")
    enforce_config: Path | None = Field(
        None, description="TOML file with the enforcement policy: which access is revoked where, and how."
    )
    enforce_carry_out: bool = Field(
        False,
        description="Whether the enforcer revokes access. If not, it only reports what it would revoke (dry run).",
    )
    enforce_max_per_window: int = Field(
        20,
        ge=1,
        le=100_000,
        description="Maximum number of revocations per window, source of grants and target. One more opens a breaker: "
        "the enforcer revokes no more of these until a person closes it.",
    )
    enforce_window_seconds: float = Field(3600.0, ge=1.0, le=604_800.0, description="Length of that window.")
    enforce_attempts: int = Field(
        5, ge=1, le=100, description="Number of attempts at one revocation before the enforcer gives up."
    )
    kafka_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Loopback port of the local Kafka; 0: any free port. Default: the previous port of the data "
        "folder, else 19092, or any free port if that is taken.",
    )
    sql_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Loopback port of the SQL endpoint of the embedded store; 0: any free port. Default: the previous "
        "port of the data folder, else 18123, or any free port if that is taken.",
    )
    sql_listen: str = Field(
        "",
        pattern=r"^((\[[0-9a-fA-F:.]+\]|[0-9.]+):\d{1,5})?$",
        description="IP address and port on which the SQL endpoint also listens, over TLS, for other machines. Needs "
        "sql_tls_certificate and sql_tls_key.",
    )
    sql_tls_certificate: Path | None = Field(None, description="PEM file with the certificate for sql_listen.")
    sql_tls_key: Path | None = Field(None, description="PEM file with its private key, not encrypted.")
    publish_host: str = Field(
        "",
        pattern=r"^[0-9a-fA-F:.]*$",
        description="IP address on which `up` and `demo` serve other machines over TLS: the gateway on port 8480 and "
        "SQL on port 8443, with a certificate and credentials that they generate. Kafka stays on loopback.",
    )
    publish_names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:*_-]+$")], ...] = Field(
        (), description="Further names and addresses of this machine for that certificate."
    )
    query_spool_statements: int = Field(
        100_000, ge=1, description="Statements of people that the spool holds while Kafka is away. Others are refused."
    )
    query_spool_mebibytes: int = Field(64, ge=1, description="The same limit in MiB; most statements take 2 KiB.")
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address on which a process serves its Prometheus metrics. For a Prometheus on another machine, "
        "use an address of this machine, or 0.0.0.0. Metrics contain only names and numbers, but need no password.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of the Prometheus metrics, /livez and /readyz; 0: any free port, which the log names.",
    )
    process_addresses: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._\[\]:-]+:[0-9]+$")], ...] = Field(
        (), description="Metrics endpoints of processes elsewhere, as host:port. `grantledger doctor` asks them, too."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["json", "text"] = Field("json", description="Format of log lines on standard error.")

    @field_validator("kafka_options")
    @classmethod
    def _no_secret_in_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "sasl.password" in options:
            raise ValueError("set the password as kafka_sasl_password, which is never printed")
        return options

    def kafka_client_options(self) -> dict[str, Any]:
        """Return the librdkafka options of all clients."""
        if not self.kafka_bootstrap_servers:
            raise SettingsError(
                "no Kafka broker: start a local stack with `grantledger up`, or name a running one's data folder with "
                f"--data (there is no {self.data_dir / STACK_FILE}), or set GRANTLEDGER_KAFKA_BOOTSTRAP_SERVERS"
            )
        options: dict[str, Any] = {"bootstrap.servers": self.kafka_bootstrap_servers, **self.kafka_options}
        if password := self.kafka_sasl_password.get_secret_value():
            options["sasl.password"] = password
        return options

    def cluster(self) -> Cluster:
        """Return the Kafka cluster of this deployment. A KafkaOptionsError names an option that librdkafka rejects."""
        from ..kafka.cluster import Cluster
        from ..kafka.options import checked

        return checked(Cluster(self.kafka_client_options(), self.topic_prefix, self.lifecycle_shards))

    def require_deployment(self) -> str:
        """Return the name of the deployment."""
        if not self.deployment:
            raise SettingsError("no deployment name: set GRANTLEDGER_DEPLOYMENT, for example prod.example.com")
        return self.deployment

    def shown(self, name: str) -> str:
        """Return the value of a setting as text: empty if there is none, and never a secret."""
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
        """File with the private key of the logs."""
        return self.key_file or self.data_dir / "keys" / "log.pem"

    @property
    def public_key_path(self) -> Path:
        """File with the public key of the logs."""
        return self.public_key_file or self.private_key_path.with_suffix(".pub")

    @property
    def source_key_path(self) -> Path:
        """Folder with the private keys of the pipeline's own sources."""
        return self.source_key_folder or self.data_dir / "keys" / "sources"

    @property
    def store_path(self) -> Path:
        """Folder of the embedded store."""
        return self.data_dir / "clickhouse"

    @property
    def query_spool_path(self) -> Path:
        """Folder with the statements of people that Kafka does not have yet."""
        return self.store_path.with_name(f"{self.store_path.name}.queries")

    @property
    def anchor_path(self) -> Path:
        """File of the anchor target ``file``."""
        return self.anchor_file or self.data_dir / "anchors.jsonl"

    @property
    def alert_outbox_path(self) -> Path:
        """File of the alerts' outbox."""
        return self.alert_outbox or self.data_dir / "alerts" / "outbox.sqlite3"


def load_settings(data_dir: Path | None = None, config: Path | None = None) -> Settings:
    """Read the settings from all sources. The arguments are from the command line."""
    problems: list[str] = []
    given = {"data_dir": data_dir, "config": config}
    values = _from_environment(problems) | {name: value for name, value in given.items() if value is not None}
    if path := values.get("config"):
        try:
            # Validated alone first, so that its errors have line numbers.
            found = load_toml(Path(path), Settings)
            values = {name: getattr(found, name) for name in found.model_fields_set} | values
        except ConfigError as error:
            problems += str(error).splitlines()
    if problems:
        raise SettingsError("\n".join(problems))
    try:
        settings = Settings(**values)
        stack = read_deployment(settings.data_dir) | read_stack(settings.data_dir)
        missing = {name: stack[name] for name in FROM_STACK if name in stack and not values.get(name)}
        return Settings(**(values | missing)) if missing else settings
    except ValidationError as error:
        raise SettingsError("\n".join(_problems(error, ""))) from None


def _from_environment(problems: list[str]) -> dict[str, Any]:
    """Return the settings in the environment, where tables and lists are JSON."""
    values: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        if (text := os.environ.get(PREFIX + name.upper())) is None or (name == "config" and not text):
            continue
        values[name] = text
        if get_origin(field.annotation) in (dict, tuple):
            try:
                values[name] = json.loads(text)
            except ValueError as error:
                problems.append(f"{PREFIX}{name.upper()}: is not JSON: {error}")
                del values[name]
    try:
        return {name: getattr(Settings(**values), name) for name in values}
    except ValidationError as error:
        problems += _problems(error, PREFIX)
        return {}


def _problems(error: ValidationError, prefix: str) -> Iterator[str]:
    """Yield one line per problem, without values: they may be secrets."""
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        text = _TYPES.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        yield f"{prefix}{name.upper() if prefix else name}: {text}"
