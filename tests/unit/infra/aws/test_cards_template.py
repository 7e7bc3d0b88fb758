"""The template of the card alerts: the function that is built, the table that it writes, and a role for just that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.aws.policies import template
from infra.lambdas.card_alert_stores import DynamoAlerts
from infra.lambdas.card_alerts import CARD_ALERTS, CardAlert, CardAlertsReport
from infra.payloads import S3Payloads
from infra.settings import CardAlertsSettings
from schema_registry.contracts import SCORE_EVENTS
from tests.unit.infra.aws.double import ACCOUNT, REGION, Call, client, deploy, deployed_statements, function_settings, is_allowed

AT = f"{REGION}:{ACCOUNT}"
NAMES = CardAlertsSettings()


@pytest.fixture(scope="module")
def deployed() -> Iterator[dict[str, Any]]:
    with mock_aws():
        for bucket in ("code", "archive"):
            client("s3").create_bucket(Bucket=bucket)
        client("s3").put_object(Bucket="code", Key="card-alerts.zip", Body=b"PK\x05\x06" + bytes(18))
        subnet = client("ec2").describe_subnets()["Subnets"][0]
        yield deploy(
            "cards",
            {
                "CodeBucket": "code", "ClusterArn": f"arn:aws:kafka:{AT}:cluster/tidemark/1", "KafkaBootstrap": "b:9096",
                "LoginArn": f"arn:aws:secretsmanager:{AT}:secret:AmazonMSK_tidemark-abcdef", "RegistryUrl": "https://registry",
                "SecretArn": f"arn:aws:secretsmanager:{AT}:secret:tidemark-abcdef", "ArchiveBucket": "archive", "Threshold": "0.3",
                "SubnetIds": subnet["SubnetId"], "SecurityGroupIds": "sg-1", "AlarmTopicArn": f"arn:aws:sns:{AT}:alarms",
            },
            without=["Mapping"],
        )  # fmt: skip


def test_the_double_still_knows_no_mapping_from_kafka(deployed: dict[str, Any]) -> None:
    """One that learns it makes the mapping too: take `without` away above."""
    with pytest.raises(ClientError):
        client("lambda").create_event_source_mapping(
            EventSourceArn=f"arn:aws:kafka:{AT}:cluster/tidemark/1", FunctionName=CARD_ALERTS, Topics=[SCORE_EVENTS]
        )


def test_the_function_is_the_one_that_is_built(deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = '{"kafka": {"sasl_username": "u", "sasl_password": "p"}, "card_alerts": {"dsn": "postgresql://u:p@h/d"}}'
    settings = function_settings(CARD_ALERTS, secrets, monkeypatch)
    assert (settings.card_alerts.threshold, settings.card_alerts.table, settings.s3.bucket) == (0.3, NAMES.table, "archive")
    assert settings.card_alerts_dsn == "postgresql://u:p@h/d"


def test_the_table_is_the_one_that_the_function_makes_here(deployed: dict[str, Any]) -> None:
    made = DynamoAlerts(client("dynamodb"), "here")
    assert made.prepare()
    keys = [client("dynamodb").describe_table(TableName=name)["Table"]["KeySchema"] for name in ("here", NAMES.table)]
    assert keys[0] == keys[1]


def test_the_mapping_reads_the_scores_and_the_alarm_a_figure_of_ours() -> None:
    resources = template("cards")["Resources"]
    assert resources["Mapping"]["Properties"]["Topics"] == [SCORE_EVENTS]
    assert f'"{resources["FraudAlarm"]["Properties"]["MetricName"]}"' in CardAlertsReport().line(0.0, 0)


def test_the_role_allows_what_the_function_does_and_nothing_beside(deployed: dict[str, Any]) -> None:
    calls: list[Call] = []
    alert = CardAlert("card:1:0", 1, "m1", 0.9, 0.9, 0.3, datetime(2026, 1, 1, tzinfo=UTC))
    assert DynamoAlerts(client("dynamodb", calls), NAMES.table).put([alert, alert]) == 1
    S3Payloads(client("s3", calls), "archive").put(f"{CARD_ALERTS}/score-events/0/17/digest", b"x" * 10)
    role = deployed_statements(deployed["CardAlertsRole"])
    assert {call.action for call in calls} == {"dynamodb:PutItem", "s3:PutObject"}
    assert [call for call in calls if not is_allowed(role, call)] == []
    for beside in (
        Call("dynamodb:DeleteItem", f"arn:aws:dynamodb:{AT}:table/{NAMES.table}"),
        Call("dynamodb:PutItem", f"arn:aws:dynamodb:{AT}:table/tidemark-event-sources"),
        Call("s3:PutObject", "arn:aws:s3:::archive/raw/a"), Call("s3:GetObject", "arn:aws:s3:::archive/quarantine/card-alerts/a"),
        Call("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{AT}:secret:another"),
    ):  # fmt: skip
        assert not is_allowed(role, beside), beside
