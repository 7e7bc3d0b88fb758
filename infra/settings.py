"""Every setting of Tidemark, typed, read once: the only module that reads the environment.

A setting comes, first match wins, from an argument, a variable `TIDEMARK_<GROUP>__<NAME>`, or the secrets file
(named by `TIDEMARK_SECRETS_FILE`): JSON of the same shape, readable by its owner alone. On AWS the same JSON may be a
secret of Secrets Manager, named by `TIDEMARK_SECRETS_ARN`.
A server whose address is set is the user's own and is never started here; the address `aws` is AWS itself.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.errors import InvalidValue, TidemarkError

SECRETS_FILE_VARIABLE = "TIDEMARK_SECRETS_FILE"
SECRETS_ARN_VARIABLE = "TIDEMARK_SECRETS_ARN"
STATE_FOLDER = ".tidemark"
DEFAULT_STACK = "demo"
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM", "SSL_CERT_FILE", "VIRTUAL_ENV", "JDK_JAVA_OPTIONS")
AWS_ITSELF = "aws"
_START_OR_SET = "start the stack (`tidemark up`) or set TIDEMARK"

Size = Literal["full", "small"]
Span = Literal["test", "validation"]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class SettingsError(TidemarkError):
    """The settings are wrong; the message lists every mistake, keyed by setting."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Group):
    """How to reach Kafka."""

    bootstrap: str | None = Field(None, description="Comma-separated host:port of your own brokers.")
    security_protocol: SecurityProtocol = Field("PLAINTEXT", description="How the connection is protected.")
    sasl_mechanism: SaslMechanism | None = Field(None, description="SASL mechanism, with a SASL_* security protocol.")
    sasl_username: str | None = Field(None, description="SASL user.")
    sasl_password: SecretStr | None = Field(None, description="SASL password.")
    ca_location: Path | None = Field(None, description="PEM file of the authority behind the brokers' certificate.")

    def client_config(self) -> dict[str, Any]:
        """Return the librdkafka options that reach this cluster.

        Raises:
            InvalidValue: no address is known.
        """
        if self.bootstrap is None:
            raise InvalidValue("kafka.bootstrap", f"no address: {_START_OR_SET}_KAFKA__BOOTSTRAP")
        options: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        if self.sasl_mechanism is not None:
            options["sasl.mechanism"] = self.sasl_mechanism
        if self.sasl_username is not None:
            options["sasl.username"] = self.sasl_username
        if self.sasl_password is not None:
            options["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ca_location is not None:
            options["ssl.ca.location"] = str(self.ca_location)
        return options


class RegistrySettings(_Group):
    """How to reach the schema registry."""

    url: str | None = Field(None, description="Address of your own registry's Confluent-compatible interface.")
    username: str | None = Field(None, description="User for basic authentication.")
    password: SecretStr | None = Field(None, description="Password for basic authentication.")

    def client_config(self) -> dict[str, Any]:
        """Return the options of confluent_kafka's SchemaRegistryClient.

        Raises:
            InvalidValue: no address is known.
        """
        if self.url is None:
            raise InvalidValue("registry.url", f"no address: {_START_OR_SET}_REGISTRY__URL")
        options: dict[str, Any] = {"url": self.url}
        if self.username is not None and self.password is not None:
            options["basic.auth.user.info"] = f"{self.username}:{self.password.get_secret_value()}"
        return options


class S3Settings(_Group):
    """How to reach the object store."""

    endpoint_url: str | None = Field(None, description="Address of your own S3-compatible store; `aws` for S3 itself.")
    access_key: str | None = Field(None, description="Access key.")
    secret_key: SecretStr | None = Field(None, description="Secret key.")
    bucket: str = Field("tidemark", description="Bucket that holds the archive.")
    region: str = Field("us-east-1", description="Region.")

    def client_config(self) -> dict[str, Any]:
        """Return the keyword arguments of `boto3.client("s3", ...)`, without the signature settings."""
        return _boto(self.endpoint_url, self.access_key, self.secret_key, self.region)

    def iceberg_config(self) -> dict[str, str]:
        """Return the same as options of Iceberg's file access; without keys it searches for them as boto3 does."""
        options = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", "s3.region": self.region}
        # Retried by the worker itself: a store that is down is named at once.
        options |= {"s3.connect-timeout": "5", "s3.request-timeout": "60"}
        if self.endpoint_url not in (None, AWS_ITSELF):
            options["s3.endpoint"] = str(self.endpoint_url)
        if self.access_key is not None and self.secret_key is not None:
            options["s3.access-key-id"] = self.access_key
            options["s3.secret-access-key"] = self.secret_key.get_secret_value()
        return options


class WarehouseSettings(_Group):
    """How to reach the warehouse."""

    dsn: SecretStr | None = Field(None, description="postgresql:// or redshift+redshift_connector:// address, user and password included.")
    iam_role: str = Field("default", description="Redshift alone: ARN of the role with which COPY reads the bucket, or `default`.")
    staging_prefix: str = Field("warehouse-staging", description="Redshift alone: key prefix of the bucket below which batches are staged.")


class CuratedSettings(_Group):
    """How to reach the catalog of the curated table."""

    catalog: SecretStr | None = Field(
        None, description="postgresql:// address of the database for the Iceberg catalog; by default the warehouse's, schema iceberg."
    )


class Neo4jSettings(_Group):
    """How to reach Neo4j."""

    uri: str | None = Field(None, description="bolt:// or neo4j+s:// address of your own server.")
    user: str = Field("neo4j", description="User.")
    password: SecretStr | None = Field(None, description="Password.")
    database: str = Field("wallets", description="Database that holds the wallet graph.")
    browser_url: str | None = Field(None, description="Address of Neo4j Browser, for links.")
    guides_url: str | None = Field(None, description="Address that serves the Browser's guides and style.")


class AwsSettings(_Group):
    """How to reach SNS, SQS, SageMaker's control plane and the other AWS services."""

    endpoint_url: str | None = Field(None, description="Address that stands in for AWS; `aws` for AWS itself, each service at its own.")
    access_key: str | None = Field(None, description="Access key; none leaves it to boto3's own search.")
    secret_key: SecretStr | None = Field(None, description="Secret key.")
    region: str = Field("us-east-1", description="Region.")

    @property
    def is_itself(self) -> bool:
        """Whether nothing stands in for AWS."""
        return self.endpoint_url in (None, AWS_ITSELF)

    def client_config(self) -> dict[str, Any]:
        """Return the keyword arguments of `boto3.client(service, ...)`."""
        return _boto(self.endpoint_url, self.access_key, self.secret_key, self.region)


class KinesisSettings(_Group):
    """What the road from Kinesis is made of, by name."""

    stream: str = Field("tidemark-transactions", description="Data stream that transactions come in by.")
    landing: str = Field("tidemark-landing", description="Firehose delivery stream that keeps what arrived as it arrived.")
    dead_letters: str = Field("tidemark-dead-letters", description="SQS queue that tells of refused records.")
    failures: str = Field("tidemark-ingestion-failures", description="SQS queue for batches that the function never got done.")
    rule_alerts: str = Field("tidemark-rule-alerts", description="SNS topic, and the queue behind it, for what rules say of the stream.")


class CardAlertsSettings(_Group):
    """What makes a card payment an alert, and where alerts are kept."""

    threshold: float = Field(0.5, ge=0.0, le=1.0, description="Score from which a card payment is an alert.")
    table: str = Field("tidemark-card-alerts", description="DynamoDB table that keeps them.")
    dsn: SecretStr | None = Field(
        None, description="postgresql:// address of the database that keeps them too; by default the warehouse's."
    )


class SparkSettings(_Group):
    """Where Spark's jobs run, and where their scores go beside the warehouse."""

    master: str | None = Field(None, description="Spark master of your own cluster, as spark://host:7077; by default the jobs run here.")
    cores: int = Field(2, ge=1, le=1024, description="Cores of a job that runs here; on a cluster, partitions of a shuffle.")
    memory: str = Field("2g", pattern=r"^[1-9][0-9]*[mg]$", description="Memory of a job's driver, and of each executor on a cluster.")
    alerts_table: str = Field("tidemark-spark-alerts", description="DynamoDB table of its alerts, whose stream calls the Lambda function.")
    alerts_topic: str = Field("tidemark-spark-alerts", description="SNS topic on which that function tells of them.")


class EndpointSettings(_Group):
    """How to reach the model's endpoint."""

    url: str | None = Field(None, description="Address that answers /endpoints/<name>/invocations.")
    name: str = Field("tidemark", description="Name of the endpoint.")


class Settings(BaseSettings):
    """Every setting. Frozen; secrets are masked wherever it is printed."""

    model_config = SettingsConfigDict(env_prefix="TIDEMARK_", env_nested_delimiter="__", extra="forbid", frozen=True, env_ignore_empty=True)

    state_dir: Path = Field(default_factory=lambda: default_state_dir(), description="Folder that holds the state of every stack.")
    stack: str = Field(DEFAULT_STACK, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Name of the stack in use.")
    data: Path | None = Field(None, description="File of transactions to read.")
    labels: Path | None = Field(None, description="File of labels to read.")
    mapping: str | None = Field(None, description="Mapping of the file: a shipped name or a YAML file.")
    span: Span = Field("test", description="Span of wallets that is judged.")
    size: Size = Field("full", description="How much of the data the demo uses.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    kafka: KafkaSettings = KafkaSettings()
    registry: RegistrySettings = RegistrySettings()
    s3: S3Settings = S3Settings()
    warehouse: WarehouseSettings = WarehouseSettings()
    curated: CuratedSettings = CuratedSettings()
    neo4j: Neo4jSettings = Neo4jSettings()
    aws: AwsSettings = AwsSettings()
    endpoint: EndpointSettings = EndpointSettings()
    kinesis: KinesisSettings = KinesisSettings()
    card_alerts: CardAlertsSettings = CardAlertsSettings()
    spark: SparkSettings = SparkSettings()

    @field_validator("state_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def stack_dir(self) -> Path:
        """Folder of the stack in use."""
        return self.state_dir / self.stack

    @property
    def card_alerts_dsn(self) -> str:
        """Address of the Postgres that keeps card alerts, password included.

        Raises:
            InvalidValue: none is known, or it is Redshift, which cannot refuse a second copy of a row.
        """
        given = self.card_alerts.dsn or self.warehouse.dsn
        if given is None:
            raise InvalidValue("card_alerts.dsn", f"no address: {_START_OR_SET}_CARD_ALERTS__DSN")
        if given.get_secret_value().startswith("redshift"):
            raise InvalidValue("card_alerts.dsn", "the warehouse is Redshift: set TIDEMARK_CARD_ALERTS__DSN to a Postgres for card alerts")
        return given.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, secrets file."""
        return init_settings, env_settings, _Secrets(settings_cls)


def load_settings(**given: Any) -> Settings:
    """Read the settings; `given` wins over the environment.

    Raises:
        SettingsError: a setting is missing, unknown or malformed, or the secrets file is readable by others.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        found = error.errors(include_input=False)
        lines = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in found]
        raise SettingsError("; ".join(lines)) from None


def default_state_dir() -> Path:
    """Return `.tidemark` beside the nearest pyproject.toml from the working folder upwards, else in that folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file():
            return folder / STATE_FOLDER
    return here / STATE_FOLDER


def process_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a server that we start: a few harmless variables of ours, then `extra`.

    Nothing else is passed on, so that a secret of the user's shell never stands in a server's environment.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment.update(extra or {})
    return environment


def worker_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a worker of ours: everything of this process, then `extra`."""
    return {**os.environ, **(extra or {})}


def aws_variables() -> dict[str, str]:
    """Return what of this process's environment says who one is on AWS: for a function that is served here."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") and not name.startswith("AWS_LAMBDA")}


def is_private(path: Path) -> bool:
    """Tell whether only the owner may read this file."""
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


class _Secrets(PydanticBaseSettingsSource):
    """Reads secrets from JSON of the same shape as the settings: one private file, or one secret of Secrets Manager."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        name, arn = os.environ.get(SECRETS_FILE_VARIABLE), os.environ.get(SECRETS_ARN_VARIABLE)
        if name and arn:
            raise SettingsError(f"both {SECRETS_FILE_VARIABLE} and {SECRETS_ARN_VARIABLE} are set: name one of them")
        if name:
            path = Path(name).expanduser()
            return _secrets_in(_private_text(path), f"{path}: the secrets file")
        if arn:
            return _secrets_in(_secret_text(arn), f"{arn}: the secret")
        return {}


def _private_text(path: Path) -> str:
    try:
        if not is_private(path):
            raise SettingsError(f"{path}: others may read this secrets file; run `chmod 600 {path}`")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: the secrets file cannot be read: {error.strerror}") from error


def _secret_text(arn: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # The secret's region stands in its name; who it is for, boto3 finds as everywhere.
        client = boto3.client("secretsmanager", region_name=arn.split(":")[3])
        return str(client.get_secret_value(SecretId=arn)["SecretString"])
    except IndexError:
        raise SettingsError(f"{SECRETS_ARN_VARIABLE}: expected arn:aws:secretsmanager:…, found {arn[:80]!r}") from None
    except KeyError:
        raise SettingsError(f"{arn}: the secret is binary, expected text") from None
    except (ClientError, BotoCoreError) as error:
        raise SettingsError(f"{arn}: the secret cannot be read: {error}") from error


def _secrets_in(text: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        # Where it stopped, never what stands there.
        where = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "at its start"
        raise SettingsError(f"{what} is not JSON ({where})") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{what} must hold one JSON object")
    return cast("dict[str, Any]", content)


def _boto(endpoint_url: str | None, access_key: str | None, secret_key: SecretStr | None, region: str) -> dict[str, Any]:
    options: dict[str, Any] = {"region_name": region}
    if endpoint_url not in (None, AWS_ITSELF):
        options["endpoint_url"] = endpoint_url
    if access_key is not None and secret_key is not None:
        options["aws_access_key_id"] = access_key
        options["aws_secret_access_key"] = secret_key.get_secret_value()
    return options
