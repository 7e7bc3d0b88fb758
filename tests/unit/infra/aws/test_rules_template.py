"""The template of the rules over the stream: the function that is built, and a role that allows what it does and nothing beside."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto import mock_aws

from domain.policy import HeldPolicy, parse_policy
from domain.values import EPOCH
from infra.aws.policies import template
from infra.lambdas.aws_parts import SqsDeadLetters
from infra.lambdas.checkpoints import CHECKPOINTS, DynamoCheckpoints
from infra.lambdas.fraud_rules import FRAUD_RULES, FraudRules
from infra.lambdas.fraud_rules_parts import KinesisPast, SnsAlerts
from infra.lambdas.kinesis_ingestion import KinesisRecord
from infra.settings import KinesisSettings
from tests.unit.infra.aws.double import ACCOUNT, REGION, Call, client, deploy, deployed_statements, function_settings, is_allowed
from tests.unit.infra.lambdas.records import transaction

NAMES = KinesisSettings()
RULE = {"name": "two", "says": "x", "per": "source_wallet_id", "within": "1h", "count_at_least": 2, "quiet_s": 0}


@pytest.fixture(scope="module")
def deployed() -> Iterator[dict[str, Any]]:
    with mock_aws():
        client("kinesis").create_stream(StreamName=NAMES.stream, ShardCount=1)
        client("dynamodb").create_table(
            TableName=CHECKPOINTS, KeySchema=[{"AttributeName": "shard", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "shard", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
        )  # fmt: skip
        client("s3").create_bucket(Bucket="code")
        client("s3").put_object(Bucket="code", Key="fraud-rules.zip", Body=b"PK\x05\x06" + bytes(18))
        subnet = client("ec2").describe_subnets()["Subnets"][0]
        yield deploy(
            "rules",
            {
                "CodeBucket": "code", "StreamArn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{NAMES.stream}", "KafkaBootstrap": "b:9096",
                "RegistryUrl": "https://registry", "SecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:tidemark-abcdef",
                "SubnetIds": subnet["SubnetId"], "SecurityGroupIds": "sg-1", "AlarmTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
            },
        )  # fmt: skip


def test_the_function_is_the_one_that_is_built(deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = function_settings(FRAUD_RULES, '{"kafka": {"sasl_username": "u", "sasl_password": "p"}}', monkeypatch)
    assert settings.kinesis == NAMES and settings.kafka.client_config()["sasl.password"] == "p"


def test_batches_of_a_shard_come_one_after_the_other_and_nothing_is_given_up() -> None:
    mapping = template("rules")["Resources"]["Mapping"]["Properties"]
    assert (mapping["ParallelizationFactor"], mapping["MaximumRetryAttempts"], mapping["BisectBatchOnFunctionError"]) == (1, -1, True)


def test_the_role_allows_what_the_function_and_its_mapping_do_and_nothing_beside(deployed: dict[str, Any]) -> None:
    calls: list[Call] = []
    policy = parse_policy({"name": "p", "version": 1, "rules": [RULE]})
    rules = FraudRules(
        lambda: HeldPolicy(policy, EPOCH), KinesisPast(client("kinesis", calls), lambda seconds: None),
        DynamoCheckpoints(client("dynamodb", calls), CHECKPOINTS, f"{FRAUD_RULES}/judged/"),
        SnsAlerts.named(client("sns", calls), NAMES.rule_alerts),
    )  # fmt: skip
    put = client("kinesis").put_record(StreamName=NAMES.stream, PartitionKey="a", Data=transaction(1))
    later = str(int(put["SequenceNumber"]) + 1)
    at = datetime.now(UTC) + timedelta(seconds=1)
    report = rules.handle([KinesisRecord(NAMES.stream, put["ShardId"], later, "a", at, transaction(2))])
    assert (report.read_again, report.alerts) == (1, 1)
    SqsDeadLetters.named(client("sqs"), "tidemark-rules-failures").send([{"a": "letter"}])
    calls.append(Call("sqs:SendMessage", f"arn:aws:sqs:{REGION}:{ACCOUNT}:tidemark-rules-failures"))
    role = deployed_statements(deployed["RulesRole"])
    assert {call.action for call in calls} == {
        "kinesis:GetShardIterator", "kinesis:GetRecords", "dynamodb:GetItem", "dynamodb:PutItem", "sns:CreateTopic", "sns:Publish",
        "sqs:SendMessage",
    }  # fmt: skip
    assert [call for call in calls if not is_allowed(role, call)] == []
    for beside in (
        Call("kinesis:PutRecords", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{NAMES.stream}"),
        Call("kinesis:GetRecords", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/another"),
        Call("sns:Publish", f"arn:aws:sns:{REGION}:{ACCOUNT}:tidemark-alerts"),
        Call("dynamodb:DeleteItem", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{CHECKPOINTS}"),
        Call("s3:GetObject", "arn:aws:s3:::archive/raw/a"),
    ):
        assert not is_allowed(role, beside), beside
