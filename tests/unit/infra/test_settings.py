"""Settings: where values come from, what is refused, and that secrets stay hidden."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from pydantic import SecretStr

from domain.errors import InvalidValue
from infra.settings import (
    AwsSettings,
    KafkaSettings,
    S3Settings,
    SettingsError,
    default_state_dir,
    load_settings,
    process_environment,
    worker_environment,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
        monkeypatch.delenv(name)


def test_nested_variables_fill_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__BOOTSTRAP", "broker:9092")
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", "hush")
    settings = load_settings()
    assert settings.kafka.bootstrap == "broker:9092"
    assert settings.kafka.sasl_password == SecretStr("hush")


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STACK", "other")
    assert load_settings(stack="mine").stack == "mine"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_DATA", "")
    assert load_settings().data is None


def test_secrets_never_appear_when_settings_are_printed() -> None:
    settings = load_settings(
        kafka={"sasl_password": "hush-1"},
        s3={"secret_key": "hush-2"},
        warehouse={"dsn": "postgresql://u:hush-3@h/d"},
        neo4j={"password": "hush-4"},
    )
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.model_dump())
    assert "hush" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param({"span": "future"}, "span", id="unknown span"),
        pytest.param({"kafka": {"bootstrp": "x"}}, "kafka.bootstrp", id="mistyped name in a group"),
        pytest.param({"colour": "red"}, "colour", id="unknown setting"),
        pytest.param({"stack": "../escape"}, "stack", id="a stack's name that is a path"),
    ],
)
def test_a_mistake_is_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        load_settings(**given)


def test_all_mistakes_are_told_together_without_the_values() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(span="future", kafka={"security_protocol": "secret-value"})
    assert "span" in str(caught.value)
    assert "kafka.security_protocol" in str(caught.value)
    assert "secret-value" not in str(caught.value)


def test_a_private_secrets_file_fills_what_the_environment_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"neo4j": {"password": "from file"}, "s3": {"secret_key": "from file"}}))
    file.chmod(0o600)
    monkeypatch.setenv("TIDEMARK_SECRETS_FILE", str(file))
    monkeypatch.setenv("TIDEMARK_S3__SECRET_KEY", "from environment")
    settings = load_settings()
    assert settings.neo4j.password == SecretStr("from file")
    assert settings.s3.secret_key == SecretStr("from environment")


def test_a_secrets_file_that_others_may_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secrets.json"
    file.write_text("{}")
    file.chmod(0o644)
    monkeypatch.setenv("TIDEMARK_SECRETS_FILE", str(file))
    with pytest.raises(SettingsError, match="chmod 600"):
        load_settings()


@pytest.mark.parametrize("content", ["not json", "[]"])
def test_a_damaged_secrets_file_is_named(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secrets.json"
    file.write_text(content)
    file.chmod(0o600)
    monkeypatch.setenv("TIDEMARK_SECRETS_FILE", str(file))
    with pytest.raises(SettingsError, match=r"secrets\.json"):
        load_settings()


def test_kafka_options_carry_tls_and_sasl() -> None:
    kafka = KafkaSettings(
        bootstrap="b:1",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="u",
        sasl_password=SecretStr("p"),
        ca_location=Path("ca.pem"),
    )
    assert kafka.client_config() == {
        "bootstrap.servers": "b:1",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "u",
        "sasl.password": "p",
        "ssl.ca.location": "ca.pem",
    }


@pytest.mark.parametrize("address", [None, "aws"])
def test_aws_itself_is_reached_at_no_address_of_ours(address: str | None) -> None:
    assert S3Settings(endpoint_url=address).client_config() == {"region_name": "us-east-1"}
    assert "s3.endpoint" not in S3Settings(endpoint_url=address).iceberg_config()
    assert AwsSettings(endpoint_url=address).is_itself
    assert AwsSettings(endpoint_url=address).client_config() == {"region_name": "us-east-1"}


def test_what_stands_in_for_aws_is_reached_at_its_address() -> None:
    assert S3Settings(endpoint_url="http://s:1").iceberg_config()["s3.endpoint"] == "http://s:1"
    assert not AwsSettings(endpoint_url="http://a:1").is_itself
    assert AwsSettings(endpoint_url="http://a:1").client_config() == {"region_name": "us-east-1", "endpoint_url": "http://a:1"}


def test_an_unknown_address_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"tidemark up.*TIDEMARK_KAFKA__BOOTSTRAP"):
        KafkaSettings().client_config()


def test_card_alerts_are_kept_in_the_warehouse_s_postgres_unless_another_is_named() -> None:
    assert load_settings(warehouse={"dsn": "postgresql://w"}).card_alerts_dsn == "postgresql://w"
    other = {"warehouse": {"dsn": "redshift+redshift_connector://w"}, "card_alerts": {"dsn": "postgresql://a"}}
    assert load_settings(**other).card_alerts_dsn == "postgresql://a"
    with pytest.raises(InvalidValue, match="set TIDEMARK_CARD_ALERTS__DSN to a Postgres"):
        _ = load_settings(warehouse={"dsn": "redshift+redshift_connector://w"}).card_alerts_dsn
    with pytest.raises(InvalidValue, match="no address"):
        _ = load_settings().card_alerts_dsn


def test_the_state_folder_lies_beside_the_project_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert default_state_dir() == tmp_path / ".tidemark"


def test_a_server_inherits_no_secret_but_a_worker_inherits_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    assert "AWS_SECRET_ACCESS_KEY" not in process_environment({"A": "1"})
    assert process_environment({"A": "1"})["A"] == "1"
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    assert process_environment()["JDK_JAVA_OPTIONS"] == "-XX:TieredStopAtLevel=1"
    assert worker_environment()["AWS_SECRET_ACCESS_KEY"] == "hush"


def test_nothing_else_reads_the_environment() -> None:
    """Every other module gets its settings handed in."""
    readers = []
    for package in ("domain", "schema_registry", "graph", "projections", "ml", "infra"):
        for file in (ROOT / package).rglob("*.py"):
            names = {
                node.attr
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
            }
            if names & {"environ", "getenv"}:
                readers.append(str(file.relative_to(ROOT)))
    assert readers == ["infra/settings.py"]


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    with mock_aws():
        yield boto3.client("secretsmanager", region_name="eu-central-1")


def test_a_secret_of_secrets_manager_has_the_file_s_shape(secrets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = secrets.create_secret(Name="tidemark", SecretString='{"kafka": {"sasl_password": "hush"}}')
    monkeypatch.setenv("TIDEMARK_SECRETS_ARN", made["ARN"])
    monkeypatch.setenv("TIDEMARK_KAFKA__BOOTSTRAP", "b:1")
    kafka = load_settings().kafka
    assert kafka.sasl_password == SecretStr("hush") and kafka.bootstrap == "b:1"


@pytest.mark.parametrize(
    ("arn", "message"),
    [
        ("nonsense", "expected arn:aws:secretsmanager"),
        ("arn:aws:secretsmanager:eu-central-1:123456789012:secret:nobody-AbCdEf", "cannot be read"),
    ],
)
def test_a_secret_that_is_not_there_is_named(secrets: Any, arn: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SECRETS_ARN", arn)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_what_stands_in_a_damaged_secret_is_not_shown(secrets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SECRETS_ARN", secrets.create_secret(Name="tidemark", SecretString='{"kafka": hush')["ARN"])
    with pytest.raises(SettingsError, match=r"is not JSON \(line 1, column 11\)") as found:
        load_settings()
    assert "hush" not in str(found.value)


def test_a_secrets_file_and_a_secret_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SECRETS_FILE", "a")
    monkeypatch.setenv("TIDEMARK_SECRETS_ARN", "b")
    with pytest.raises(SettingsError, match="name one of them"):
        load_settings()
