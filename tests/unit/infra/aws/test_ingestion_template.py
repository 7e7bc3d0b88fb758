"""The road from Kinesis as a template: it deploys, and its role allows the calls that the function really makes and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from moto import mock_aws

from domain.log import NewRecord
from infra.aws.policies import TEMPLATES, template
from infra.lambdas.aws_parts import FirehoseLanding, SqsDeadLetters
from infra.lambdas.event_source import KinesisEventSource
from infra.lambdas.kinesis_ingestion import INGESTION, IngestionReport, KinesisIngestion, records_of
from infra.payloads import S3Payloads
from infra.settings import KinesisSettings
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec
from tests.unit.infra.aws.double import ACCOUNT, REGION, Call, client, deploy, deployed_statements, function_settings, is_allowed
from tests.unit.infra.lambdas.records import transaction

SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:tidemark-AbCdEf"
NAMES = KinesisSettings()


@pytest.fixture(scope="module")
def deployed() -> Iterator[dict[str, Any]]:
    """The stack in AWS' double: its resources' physical names by their logical ones."""
    with mock_aws():
        s3 = client("s3")
        for bucket in ("code", "archive"):
            s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket="code", Key="kinesis-ingestion.zip", Body=b"PK\x05\x06" + bytes(18))
        subnet = client("ec2").describe_subnets()["Subnets"][0]
        group = client("ec2").describe_security_groups()["SecurityGroups"][0]
        given = {
            "CodeBucket": "code", "KafkaBootstrap": "b:9096", "RegistryUrl": "https://r", "ArchiveBucket": "archive", "SecretArn": SECRET,
            "SubnetIds": subnet["SubnetId"], "SecurityGroupIds": group["GroupId"],
            "AlarmTopicArn": client("sns").create_topic(Name="alarms")["TopicArn"],
        }  # fmt: skip
        found = deploy("ingestion", given)
        # The double's CloudFormation leaves delivery streams out; its Firehose knows them.
        s3.create_bucket(Bucket="landing")
        client("firehose").create_delivery_stream(
            DeliveryStreamName=NAMES.landing,
            ExtendedS3DestinationConfiguration={"RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r", "BucketARN": "arn:aws:s3:::landing"},
        )
        yield found


def test_everything_is_made_and_named_as_the_settings_name_it(deployed: dict[str, Any]) -> None:
    summary = client("kinesis").describe_stream(StreamName=NAMES.stream)["StreamDescription"]
    assert summary["RetentionPeriodHours"] == 168 and len(summary["Shards"]) == 2
    for queue in (NAMES.dead_letters, NAMES.failures):
        url = client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
        assert client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["MessageRetentionPeriod"] == "1209600"


def test_what_the_double_leaves_out_stands_in_the_template() -> None:
    resources = template("ingestion")["Resources"]
    assert resources["Stream"]["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS"
    bucket = resources["LandingBucket"]["Properties"]
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled" and "BucketEncryption" in bucket and "LifecycleConfiguration" in bucket
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    emitted = json.loads(IngestionReport().line(0.0, 0)).keys()
    alarms = [item["Properties"] for item in resources.values() if item["Type"] == "AWS::CloudWatch::Alarm"]
    assert {alarm.get("MetricName") for alarm in alarms} == {"IteratorAge", "Refused", "Errors", "IncomingRecords", None}
    assert all(alarm["MetricName"] in emitted for alarm in alarms if alarm.get("Namespace") == "Tidemark")
    body = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"].replace("${AWS::Region}", REGION))
    metrics = [metric for widget in body["widgets"] for metric in widget["properties"]["metrics"]]
    assert {metric[1] for metric in metrics if metric[0] == "Tidemark"} <= emitted and len(metrics) == 12


def test_the_function_is_the_one_that_is_built(deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = function_settings(INGESTION, '{"kafka": {"sasl_username": "u", "sasl_password": "p"}}', monkeypatch)
    assert settings.kafka.client_config() == {
        "bootstrap.servers": "b:9096", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u",
        "sasl.password": "p",
    }  # fmt: skip
    assert (settings.kinesis, settings.s3.bucket) == (NAMES, "archive")


def test_the_mapping_gives_up_on_nothing(deployed: dict[str, Any]) -> None:
    text = (TEMPLATES / "ingestion.yaml").read_text("utf-8")
    (mapping,) = client("lambda").list_event_source_mappings(FunctionName=INGESTION)["EventSourceMappings"]
    assert mapping["EventSourceArn"].endswith(f"stream/{NAMES.stream}") and mapping["BatchSize"] == 500
    assert "MaximumRetryAttempts: -1" in text and "BisectBatchOnFunctionError: true" in text and "ReportBatchItemFailures" in text


def test_the_role_allows_what_the_function_and_its_mapping_do_and_nothing_beside(deployed: dict[str, Any]) -> None:
    calls: list[Call] = []
    log: list[NewRecord] = []

    class Log:
        def append(self, records: Any) -> dict[int, str]:
            log.extend(records)
            return {}

    ingestion = KinesisIngestion(
        RecordCodec(SchemaCatalog.numbered()), Log(), FirehoseLanding(client("firehose", calls), NAMES.landing),
        SqsDeadLetters.named(client("sqs", calls), NAMES.dead_letters), S3Payloads(client("s3", calls), "archive"),
    )  # fmt: skip
    failures = SqsDeadLetters.named(client("sqs", calls), NAMES.failures)

    class Nowhere:
        def load(self, stream: str, shard: str) -> None:
            return None

        def save(self, stream: str, shard: str, sequence_number: str) -> None:
            """AWS' own mapping keeps its place itself."""

    # The double would call the function in a container of Docker's.
    (mapping,) = client("lambda").list_event_source_mappings(FunctionName=INGESTION)["EventSourceMappings"]
    client("lambda").delete_event_source_mapping(UUID=mapping["UUID"])
    for n, data in enumerate([transaction(1), b"bad", b"x" * (300 << 10)]):
        client("kinesis").put_record(StreamName=NAMES.stream, PartitionKey=str(n), Data=data)
    source = KinesisEventSource(
        client("kinesis", calls), NAMES.stream, lambda event: ingestion.handle(records_of(event)).answer(), INGESTION, Nowhere(), failures
    )
    source.poll()
    failures.send([{"a": "letter"}])
    assert len(log) == 3
    role = deployed_statements(deployed["FunctionRole"])
    assert {call.action for call in calls} == {
        "kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords", "firehose:PutRecordBatch",
        "sqs:GetQueueUrl", "sqs:SendMessage", "s3:PutObject",
    }  # fmt: skip
    assert [call for call in calls if not is_allowed(role, call)] == []
    at = f"{REGION}:{ACCOUNT}"
    for beside in (
        ("kinesis:PutRecord", f"arn:aws:kinesis:{at}:stream/{NAMES.stream}"),
        ("kinesis:GetRecords", f"arn:aws:kinesis:{at}:stream/another"),
        ("sqs:ReceiveMessage", f"arn:aws:sqs:{at}:{NAMES.dead_letters}"),
        ("sqs:SendMessage", f"arn:aws:sqs:{at}:another"),
        ("s3:PutObject", "arn:aws:s3:::archive/raw/transaction-events/0"),
        ("s3:GetObject", "arn:aws:s3:::archive/quarantine/kinesis-ingestion/a"),
        ("s3:ListAllMyBuckets", "*"),
        ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{at}:secret:another"),
    ):
        assert not is_allowed(role, Call(*beside)), beside
