"""The template of the Spark road: the table that the job writes, the function that is built, and roles for just what they do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from infra.aws.policies import template
from infra.lambdas.sns_messages import publish, topic_arn
from infra.lambdas.stream_alerts import STREAM_ALERTS
from infra.settings import SparkSettings
from infra.spark.jobs.alert_items import AlertItems
from tests.unit.infra.aws.double import ACCOUNT, REGION, Call, client, deploy, deployed_statements, function_settings, is_allowed

AT = f"{REGION}:{ACCOUNT}"
NAMES = SparkSettings()
ALERT = {"tx_id": "card:1:0", "log_partition": 1, "log_offset": 7, "seq": 3, "model_version": "lr-0", "score": 0.9, "threshold": 0.5}


@pytest.fixture(scope="module")
def deployed() -> Iterator[dict[str, Any]]:
    with mock_aws():
        client("s3").create_bucket(Bucket="code")
        client("s3").put_object(Bucket="code", Key="stream-alerts.zip", Body=b"PK\x05\x06" + bytes(18))
        subnet = client("ec2").describe_subnets()["Subnets"][0]
        yield deploy(
            "spark",
            {
                "CodeBucket": "code", "Bucket": "archive", "SpecSecretArn": f"arn:aws:secretsmanager:{AT}:secret:spec-abcdef",
                "ReleaseLabel": "emr-9.0.0", "SubnetIds": subnet["SubnetId"], "SecurityGroupIds": "sg-1",
                "AlarmTopicArn": f"arn:aws:sns:{AT}:alarms",
            },
        )  # fmt: skip


def test_the_function_is_the_one_that_is_built(deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert function_settings(STREAM_ALERTS, "{}", monkeypatch).spark == NAMES


def test_the_table_is_the_one_that_the_job_makes_here(deployed: dict[str, Any]) -> None:
    assert AlertItems(client("dynamodb"), "here").prepare()
    tables = [client("dynamodb").describe_table(TableName=name)["Table"] for name in ("here", NAMES.alerts_table)]
    for key in ("KeySchema", "StreamSpecification"):
        assert tables[0][key] == tables[1][key]
    (mapping,) = client("lambda").list_event_source_mappings(FunctionName=STREAM_ALERTS)["EventSourceMappings"]
    assert mapping["EventSourceArn"] == tables[1]["LatestStreamArn"]


def test_the_job_s_role_allows_its_alerts_and_to_read_its_model(deployed: dict[str, Any]) -> None:
    items = AlertItems(client("dynamodb"), NAMES.alerts_table)
    items.put([ALERT])
    items.put([ALERT])
    assert items.exists() and items.count() == 1
    role = deployed_statements(deployed["JobRole"])
    assert is_allowed(role, Call("dynamodb:BatchWriteItem", f"arn:aws:dynamodb:{AT}:table/{NAMES.alerts_table}"))
    assert is_allowed(role, Call("s3:GetObject", "arn:aws:s3:::archive/models/spark/lr-0/pipeline/metadata/part-0"))
    assert is_allowed(role, Call("s3:ListBucket", "arn:aws:s3:::archive"))
    for beside in (
        Call("dynamodb:DeleteItem", f"arn:aws:dynamodb:{AT}:table/{NAMES.alerts_table}"),
        Call("s3:PutObject", "arn:aws:s3:::archive/raw/g1/a"), Call("s3:PutObject", "arn:aws:s3:::archive/models/spark/a"),
        Call("s3:GetObject", "arn:aws:s3:::archive/models/m-1/a"),
        Call("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{AT}:secret:another"),
    ):  # fmt: skip
        assert not is_allowed(role, beside), beside


def test_the_function_s_role_allows_what_it_tells_and_nothing_beside(deployed: dict[str, Any]) -> None:
    calls: list[Call] = []
    sns = client("sns", calls)
    publish(sns, topic_arn(sns, NAMES.alerts_topic), [("e", "{}")])
    role = deployed_statements(deployed["FunctionRole"])
    assert {call.action for call in calls} == {"sns:CreateTopic", "sns:Publish"}
    topic = f"arn:aws:sns:{AT}:{NAMES.alerts_topic}"
    assert all(is_allowed(role, Call(call.action, topic)) for call in calls)
    assert not is_allowed(role, Call("sns:Publish", f"arn:aws:sns:{AT}:another"))
    assert not is_allowed(role, Call("dynamodb:PutItem", f"arn:aws:dynamodb:{AT}:table/{NAMES.alerts_table}"))


def test_the_handler_is_where_the_zip_has_it() -> None:
    properties = template("spark")["Resources"]["Function"]["Properties"]
    assert (properties["FunctionName"], properties["Handler"]) == (STREAM_ALERTS, "infra/lambdas/stream_alerts_app.handler")
