"""The template: it passes the linter, deploys, and its role allows the calls that the function really makes and no others."""

from __future__ import annotations

import ast
import fnmatch
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode
from moto import mock_aws

from domain.log import NewRecord
from infra.lambdas.aws_parts import FirehoseLanding, SqsDeadLetters
from infra.lambdas.event_source import KinesisEventSource
from infra.lambdas.functions import FUNCTIONS
from infra.lambdas.kinesis_ingestion import INGESTION, IngestionReport, KinesisIngestion, metrics_line, records_of
from infra.payloads import S3Payloads
from infra.settings import KinesisSettings, load_settings
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec
from tests.unit.infra.lambdas.records import transaction

TEMPLATES = Path(__file__).parents[4] / "infra" / "aws"
TEMPLATE = TEMPLATES / "ingestion.yaml"
REGION, ACCOUNT = "us-east-1", "123456789012"
SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:tidemark-AbCdEf"
NAMES = KinesisSettings()
Call = tuple[str, str]  # action, ARN of the resource


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
        cloudformation = client("cloudformation")
        cloudformation.create_stack(
            StackName="ingestion", TemplateBody=TEMPLATE.read_text("utf-8"), Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )  # fmt: skip
        (stack,) = cloudformation.describe_stacks(StackName="ingestion")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        # The double's CloudFormation leaves delivery streams out; its Firehose knows them.
        s3.create_bucket(Bucket="landing")
        client("firehose").create_delivery_stream(
            DeliveryStreamName=NAMES.landing,
            ExtendedS3DestinationConfiguration={"RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r", "BucketARN": "arn:aws:s3:::landing"},
        )
        found = cloudformation.list_stack_resources(StackName="ingestion")["StackResourceSummaries"]
        yield {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in found}


def client(service: str, calls: list[Call] | None = None) -> Any:
    made = boto3.client(service, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")  # type: ignore[call-overload]
    if calls is not None:

        def note(params: dict[str, Any], model: Any, **_: Any) -> None:
            calls.append((f"{service}:{ACTIONS.get(model.name, model.name)}", _arn(service, params)))

        made.meta.events.register(f"provide-client-params.{service}.*", note)
    return made


ACTIONS = {"SendMessageBatch": "SendMessage"}  # one permission for both


def _arn(service: str, params: dict[str, Any]) -> str:
    """The resource of a call as policies name it."""
    at = f"{REGION}:{ACCOUNT}"
    if service == "kinesis":
        name = params.get("StreamName") or NAMES.stream  # an iterator is of a stream
        return f"arn:aws:kinesis:{at}:stream/{name}"
    if service == "firehose":
        return f"arn:aws:firehose:{at}:deliverystream/{params['DeliveryStreamName']}"
    if service == "sqs":
        return f"arn:aws:sqs:{at}:{params.get('QueueName') or params['QueueUrl'].rpartition('/')[2]}"
    assert service == "s3"
    return f"arn:aws:s3:::{params['Bucket']}" + (f"/{params['Key']}" if "Key" in params else "")


def is_allowed(role: str, call: Call) -> bool:
    """Whether the role's own policies allow a call; nothing in them denies."""
    for statement in statements(role):
        assert statement["Effect"] == "Allow"
        actions, resources = (item if isinstance(item, list) else [item] for item in (statement["Action"], statement["Resource"]))
        if call[0] in actions and any(fnmatch.fnmatchcase(call[1], resource) for resource in resources):
            return True
    return False


def statements(role: str) -> list[dict[str, Any]]:
    """What the role's own policies say."""
    iam = client("iam")
    found: list[dict[str, Any]] = []
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        found += (ast.literal_eval(document) if isinstance(document, str) else document)["Statement"]
    return found


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.name)
def test_the_linter_has_nothing_to_say(template: Path) -> None:
    found = subprocess.run([Path(sys.executable).with_name("cfn-lint"), template], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_everything_is_made_and_named_as_the_settings_name_it(deployed: dict[str, Any]) -> None:
    summary = client("kinesis").describe_stream(StreamName=NAMES.stream)["StreamDescription"]
    assert summary["RetentionPeriodHours"] == 168 and len(summary["Shards"]) == 2
    for queue in (NAMES.dead_letters, NAMES.failures):
        url = client("sqs").get_queue_url(QueueName=queue)["QueueUrl"]
        assert client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["MessageRetentionPeriod"] == "1209600"


def test_what_the_double_leaves_out_stands_in_the_template() -> None:
    resources = decode(str(TEMPLATE))[0]["Resources"]
    assert resources["Stream"]["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS"
    bucket = resources["LandingBucket"]["Properties"]
    assert bucket["VersioningConfiguration"]["Status"] == "Enabled" and "BucketEncryption" in bucket and "LifecycleConfiguration" in bucket
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    emitted = json.loads(metrics_line(INGESTION, IngestionReport(), 0.0, 0)).keys()
    alarms = [item["Properties"] for item in resources.values() if item["Type"] == "AWS::CloudWatch::Alarm"]
    assert {alarm.get("MetricName") for alarm in alarms} == {"IteratorAge", "Refused", "Errors", "IncomingRecords", None}
    assert all(alarm["MetricName"] in emitted for alarm in alarms if alarm.get("Namespace") == "Tidemark")
    body = json.loads(resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"].replace("${AWS::Region}", REGION))
    metrics = [metric for widget in body["widgets"] for metric in widget["properties"]["metrics"]]
    assert {metric[1] for metric in metrics if metric[0] == "Tidemark"} <= emitted and len(metrics) == 12


def test_the_function_is_the_one_that_is_built(deployed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = client("lambda").get_function_configuration(FunctionName=INGESTION)
    ours = FUNCTIONS[INGESTION]
    assert (found["Handler"], found["Timeout"], found["MemorySize"]) == (ours.handler, ours.timeout_s, ours.memory_mb)
    client("secretsmanager").create_secret(Name="tidemark", SecretString='{"kafka": {"sasl_username": "u", "sasl_password": "p"}}')
    (secret,) = client("secretsmanager").list_secrets()["SecretList"]
    for name, value in {**found["Environment"]["Variables"], "TIDEMARK_SECRETS_ARN": secret["ARN"]}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.kafka.client_config() == {
        "bootstrap.servers": "b:9096", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u",
        "sasl.password": "p",
    }  # fmt: skip
    assert (settings.kinesis, settings.s3.bucket) == (NAMES, "archive")


def test_the_mapping_gives_up_on_nothing(deployed: dict[str, Any]) -> None:
    text = TEMPLATE.read_text("utf-8")
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
    role = deployed["FunctionRole"]
    assert {action for action, _ in calls} == {
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
        assert not is_allowed(role, beside), beside


def test_no_role_has_a_wild_action_or_all_resources_but_for_what_takes_none(deployed: dict[str, Any]) -> None:
    for role in (deployed["FunctionRole"], deployed["LandingRole"]):
        for statement in statements(role):
            assert "*" not in json.dumps(statement["Action"])
            if statement["Resource"] == "*":
                assert statement["Sid"] == "ReachTheSubnets"
