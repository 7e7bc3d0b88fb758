"""The templates together: the linter has nothing to say, they deploy in the order of the docs, and they fit each other and our code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.aws.policies import TEMPLATES, files, filled_in, policies, template, templates
from infra.composition import WORKERS
from infra.instances import STANDING_BY
from infra.lambdas.card_alerts import CardAlertsReport
from infra.lambdas.checkpoints import CHECKPOINTS
from infra.lambdas.fraud_rules import RulesReport
from infra.lambdas.kinesis_ingestion import INGESTION, IngestionReport
from infra.notifier import QUEUE, TOPIC
from infra.settings import EndpointSettings, KinesisSettings, Settings, WarehouseSettings, load_settings
from projections.archive import ARCHIVED_TOPICS, SCHEMA
from tests.unit.infra.aws.double import BROKERS, IMAGE, PACKAGE, REGION, client, deployed_statements, deployed_values, left_out

NOT_IN_THE_DOUBLE = {
    "cards": {"AWS::CloudWatch::Alarm"},
    "ingestion": {"AWS::CloudWatch::Alarm", "AWS::KinesisFirehose::DeliveryStream"},
    "lake": {"AWS::Athena::WorkGroup", "AWS::Glue::Database", "AWS::Glue::Table"},
    "log": {
        "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy", "AWS::CloudWatch::Alarm",
        "AWS::MSK::BatchScramSecret", "AWS::MSK::Cluster", "AWS::MSK::Configuration", "AWS::SecretsManager::Secret",
        "AWS::ServiceDiscovery::PrivateDnsNamespace", "AWS::ServiceDiscovery::Service",
    },
    "operator": {"AWS::SecretsManager::Secret"},
    "rules": {"AWS::CloudWatch::Alarm", "AWS::SNS::Subscription", "AWS::SQS::QueuePolicy"},
    "scoring": {
        "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::ApplicationAutoScaling::ScalingPolicy", "AWS::CloudWatch::Alarm",
    },
    "spark": {"AWS::CloudWatch::Alarm", "AWS::EMRServerless::Application"},
    "stores": {
        "AWS::RedshiftServerless::Namespace", "AWS::RedshiftServerless::Workgroup", "AWS::S3::BucketPolicy", "AWS::SecretsManager::Secret",
    },
    "watch": {"AWS::CloudWatch::Alarm", "AWS::SNS::Subscription", "AWS::SQS::QueuePolicy"},
    "worker": {"AWS::CloudWatch::Alarm", "AWS::Logs::MetricFilter"},
    "workers": {"AWS::SecretsManager::Secret"},
}  # fmt: skip
"""Resource types that were linted alone. One that the double learns must leave this list, and is deployed from then on."""


def resources(name: str, kind: str) -> dict[str, Any]:
    """The properties of a template's resources of one type, by logical name."""
    return {key: one.get("Properties", {}) for key, one in template(name)["Resources"].items() if one["Type"] == kind}


def test_the_linter_has_nothing_to_say() -> None:
    names = [str(TEMPLATES / f"{name}.yaml") for name in templates()]
    found = subprocess.run([Path(sys.executable).with_name("cfn-lint"), *names], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("name", templates())
def test_what_the_double_cannot_make_is_named_here(name: str) -> None:
    assert left_out(name) == NOT_IN_THE_DOUBLE[name]


def test_all_the_rest_is_made(stacks: dict[str, dict[str, str]]) -> None:
    for name, found in stacks.items():
        wanted = {key for key, one in template(name)["Resources"].items() if one["Type"] not in NOT_IN_THE_DOUBLE[name]}
        assert found.keys() == wanted, name


def test_what_one_stack_reads_another_has_written(stacks: dict[str, dict[str, str]]) -> None:
    pages = client("ssm").get_paginator("describe_parameters").paginate()
    written = {item["Name"] for page in pages for item in page["Parameters"]}
    read = {
        one["Default"] for name in templates() for one in template(name).get("Parameters", {}).values()
        if one["Type"].startswith("AWS::SSM::Parameter::Value")
    }  # fmt: skip
    assert read == written


def test_names_are_those_of_our_code(stacks: dict[str, dict[str, str]]) -> None:
    assert client("sqs").get_queue_url(QueueName=QUEUE)["QueueUrl"] == stacks["watch"]["AlertQueue"]
    assert stacks["watch"]["AlertTopic"].endswith(f":{TOPIC}")
    assert client("dynamodb").describe_table(TableName=CHECKPOINTS)["Table"]["KeySchema"] == [{"AttributeName": "shard", "KeyType": "HASH"}]
    assert template("scoring")["Resources"]["Endpoint"]["Properties"]["EndpointName"] == EndpointSettings().name
    # The double chooses a name of its own.
    endpoint = client("sagemaker").describe_endpoint(EndpointName=stacks["scoring"]["Endpoint"].rpartition("/")[2])
    configuration = client("sagemaker").describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    (variant,) = configuration["ProductionVariants"]
    model = client("sagemaker").describe_model(ModelName=variant["ModelName"])
    assert model["PrimaryContainer"] == {"Image": IMAGE, "ModelDataUrl": PACKAGE}
    (target,) = resources("scoring", "AWS::ApplicationAutoScaling::ScalableTarget").values()
    assert target["ResourceId"] == f"endpoint/{EndpointSettings().name}/variant/{variant['VariantName']}"


def test_every_worker_has_a_service_and_a_role_of_its_own(stacks: dict[str, dict[str, str]]) -> None:
    nested = resources("workers", "AWS::CloudFormation::Stack")
    assert {one["Parameters"]["Worker"] for one in nested.values()} == set(WORKERS)
    assert {one["Parameters"]["TaskRole"]["Fn::GetAtt"][0] for one in nested.values()} == {f"{key}Role" for key in nested}
    tasks = [
        client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
        for arn in client("ecs").list_task_definitions()["taskDefinitionArns"]
    ]
    by_worker = {task["containerDefinitions"][0]["command"][1]: task for task in tasks if task["family"].endswith("-1")}
    assert by_worker.keys() == WORKERS.keys()
    for worker, task in by_worker.items():
        (container,) = task["containerDefinitions"]
        assert container["command"] == ["run", worker, "--instance", "1"]
        assert container["readonlyRootFilesystem"] is True and container["user"] == "10001" and container["image"] == IMAGE
        assert container["healthCheck"]["command"] == ["CMD", "python", "-m", "infra.health", f"/state/aws/workers/{worker}.json"]
    services = client("ecs").list_services(cluster="tidemark")["serviceArns"]
    assert {arn.rpartition("/")[2] for arn in services} == {"tidemark-registry", *(f"tidemark-{worker}-1" for worker in WORKERS)}


def test_two_processes_of_one_number_never_run_together() -> None:
    (service,) = resources("worker", "AWS::ECS::Service").values()
    rolling = service["DeploymentConfiguration"]
    assert (rolling["MinimumHealthyPercent"], rolling["MaximumPercent"], service["DesiredCount"]) == (0, 100, 1)
    assert rolling["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}


def test_what_needs_a_model_waits_for_one() -> None:
    waiting = {key for key, one in template("workers")["Resources"].items() if one.get("Condition") == "IsScored"}
    assert waiting == {"Scorer", "ScorerRole", "Alerts", "AlertsRole"}
    assert {"scorer", "alerts"} < set(STANDING_BY)


@pytest.mark.parametrize(("name", "logical"), [("worker", "Task"), ("operator", "Task")])
def test_a_task_s_environment_is_settings_that_reach_aws_itself(name: str, logical: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = template(name)["Resources"][logical]["Properties"]["ContainerDefinitions"]
    values = {"KafkaBootstrap": BROKERS, "RegistryUrl": "http://r", "Bucket": "bucket", "AWS::Region": REGION}
    for one in container["Environment"]:
        if one["Name"] != "TIDEMARK_SECRETS_ARN":
            monkeypatch.setenv(one["Name"], filled_in(one["Value"], values))
    settings = load_settings()
    assert (settings.kafka.bootstrap, settings.s3.bucket, settings.registry.url) == (BROKERS, "bucket", "http://r")
    assert settings.s3.client_config() == settings.aws.client_config() == {"region_name": REGION}
    assert settings.aws.is_itself and "s3.endpoint" not in settings.s3.iceberg_config()


@pytest.mark.parametrize(
    ("name", "logical", "groups"),
    [
        ("log", "LogSettings", {"kafka"}),
        ("workers", "WarehouseSettings", {"kafka", "warehouse"}),
        ("workers", "CuratedSettings", {"kafka", "curated"}),
        ("workers", "GraphSettings", {"kafka", "neo4j"}),
        ("operator", "Settings", {"kafka", "warehouse", "curated"}),
    ],
)
def test_a_secret_is_a_secrets_file_of_ours(name: str, logical: str, groups: set[str]) -> None:
    text = template(name)["Resources"][logical]["Properties"]["SecretString"]["Fn::Sub"]
    found = json.loads(re.sub(r"\{\{resolve:[^}]*\$\{\w+\}:SecretString:(username|password)\}\}", r"the-\1", text))
    assert found.keys() == groups
    settings = Settings(**found)
    assert settings.kafka.sasl_password is not None and settings.kafka.sasl_password.get_secret_value() == "the-password"


def test_no_password_stands_in_a_template() -> None:
    for name in templates():
        for key, value in _texts(template(name)):
            if re.search(r"password$", key, re.IGNORECASE) and value not in ("password",):
                assert "{{resolve:secretsmanager:" in value, (name, key)


def test_buckets_are_versioned_encrypted_closed_and_cool_down() -> None:
    for name in ("stores", "ingestion"):
        for bucket in resources(name, "AWS::S3::Bucket").values():
            assert bucket["VersioningConfiguration"]["Status"] == "Enabled" and "BucketEncryption" in bucket
            assert all(bucket["PublicAccessBlockConfiguration"].values())
            rules = {rule.get("Prefix") for rule in bucket["LifecycleConfiguration"]["Rules"]}
            assert "raw/" in rules
    (policy,) = resources("stores", "AWS::S3::BucketPolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    prefixes = {
        rule["Prefix"] for rule in resources("stores", "AWS::S3::Bucket")["Bucket"]["LifecycleConfiguration"]["Rules"] if "Prefix" in rule
    }
    assert f"{WarehouseSettings().staging_prefix}/" in prefixes


def test_alarms_and_dashboards_look_at_metrics_that_exist(stacks: dict[str, dict[str, str]]) -> None:
    emitted = {
        name
        for line in (IngestionReport().line(0.0, 0), CardAlertsReport().line(0.0, 0), *RulesReport().lines(0.0, 0))
        for name in json.loads(line)
    }
    (stops,) = resources("worker", "AWS::Logs::MetricFilter").values()
    ours = {*emitted, stops["MetricTransformations"][0]["MetricName"]}
    assert 'log.error("stopped_by_error"' in (TEMPLATES.parent / "worker.py").read_text("utf-8")
    assert stops["FilterPattern"] == '{ $.event = "stopped_by_error" }'
    for name in templates():
        for alarm in resources(name, "AWS::CloudWatch::Alarm").values():
            for metric in _metrics(alarm):
                assert metric["Namespace"].startswith("AWS/") or metric["MetricName"] in ours, alarm
    body = json.loads(client("cloudwatch").get_dashboard(DashboardName="tidemark")["DashboardBody"])
    metrics = [metric for widget in body["widgets"] for metric in widget["properties"]["metrics"]]
    assert {metric[1] for metric in metrics if metric[0] == "Tidemark"} <= emitted
    assert {metric[3] for metric in metrics if metric[0] == "AWS/SQS"} == {QUEUE, "tidemark-alerts-unread"}


def test_what_is_unusual_is_alarmed_both_ways_for_records_and_upwards_for_alerts() -> None:
    alarms = resources("watch", "AWS::CloudWatch::Alarm")
    compared = {key: alarm["ComparisonOperator"] for key, alarm in alarms.items() if "ThresholdMetricId" in alarm}
    assert compared == {"UnusualIngestion": "LessThanLowerOrGreaterThanUpperThreshold", "UnusualAlerts": "GreaterThanUpperThreshold"}
    assert _metrics(alarms["AlertSpike"])[0]["MetricName"] == "NumberOfMessagesPublished"
    # The same subscription that the notifier asks for: one with other attributes would be refused.
    assert resources("watch", "AWS::SNS::Subscription")["AlertSubscription"].keys() == {
        "TopicArn",
        "Protocol",
        "Endpoint",
        "RawMessageDelivery",
    }


def test_the_lake_s_tables_are_the_archive_s() -> None:
    tables = {table["TableInput"]["Name"]: table["TableInput"] for table in resources("lake", "AWS::Glue::Table").values()}
    assert tables.keys() == {"landing", *(f"raw_{topic.replace('-', '_')}" for topic in ARCHIVED_TOPICS)}
    kinds = {"int32": "int", "int64": "bigint", "binary": "binary"}
    columns = [{"Name": field.name, "Type": kinds.get(str(field.type), "array<struct<name:string,value:binary>>")} for field in SCHEMA]
    for topic in ARCHIVED_TOPICS:
        stored = tables[f"raw_{topic.replace('-', '_')}"]["StorageDescriptor"]
        assert stored["Columns"] == columns
        assert stored["Location"]["Fn::Sub"] == f"s3://${{Bucket}}/raw/g${{ArchiveGeneration}}/{topic}/"


def test_the_registry_is_the_version_that_runs_here() -> None:
    (version,) = set(
        re.findall(
            r"<artifactId>apicurio-registry-app</artifactId>\s*<version>([^<]+)",
            (TEMPLATES.parent / "stack" / "jars" / "registry.xml").read_text("utf-8"),
        )
    )
    assert template("log")["Parameters"]["RegistryImage"]["Default"] == f"apicurio/apicurio-registry:{version}"


def test_brokers_are_reached_as_our_clients_speak() -> None:
    (cluster,) = resources("log", "AWS::MSK::Cluster").values()
    assert cluster["ClientAuthentication"] == {
        "Sasl": {"Scram": {"Enabled": True}, "Iam": {"Enabled": False}}, "Unauthenticated": {"Enabled": False},
    }  # fmt: skip
    (container,) = template("worker")["Resources"]["Task"]["Properties"]["ContainerDefinitions"]
    said = {one["Name"]: one["Value"] for one in container["Environment"]}
    assert (said["TIDEMARK_KAFKA__SECURITY_PROTOCOL"], said["TIDEMARK_KAFKA__SASL_MECHANISM"]) == ("SASL_SSL", "SCRAM-SHA-512")


def test_the_stream_of_the_road_is_the_one_that_is_watched() -> None:
    assert KinesisSettings().stream in json.dumps(template("ingestion"))
    (metric,) = _metrics(resources("watch", "AWS::CloudWatch::Alarm")["UnusualIngestion"])
    assert metric["Dimensions"] == [{"Name": "Function", "Value": INGESTION}]


def test_the_policies_as_files_are_the_templates_own(stacks: dict[str, dict[str, str]]) -> None:
    written = {path: path.read_text("utf-8") for path in (TEMPLATES / "policies").glob("*.json")}
    assert written == dict(files()), "run `python -m infra.aws.policies`"
    for name in ("workers", "stores", "scoring"):
        values = deployed_values(name, stacks[name])
        for role, document in policies(name).items():
            # The double attaches no managed policies: a role's own statements are the last.
            held = deployed_statements(stacks[name][role])
            assert held and filled_in(document["Statement"], values)[-len(held) :] == held, role


def test_no_role_has_a_wild_action_or_all_resources_but_for_what_takes_none() -> None:
    for name in templates():
        for role, document in policies(name).items():
            for statement in document["Statement"]:
                assert "*" not in json.dumps(statement["Action"]), (name, role)
                if statement["Resource"] == "*":
                    assert statement["Sid"] in ("LookAround", "ReachTheSubnets", "SignInToImages", "TellHowBusyItIs"), (name, role)


def _metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that an alarm looks at."""
    if "MetricName" in alarm:
        return [alarm]
    return [one["MetricStat"]["Metric"] for one in alarm["Metrics"] if "MetricStat" in one]


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a template with the key that it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, key if name.startswith("Fn::") else name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


@pytest.mark.parametrize("page", ["aws.md", "kinesis.md"])
def test_what_the_docs_deploy_has_the_parameters_that_they_name(page: str) -> None:
    text = (TEMPLATES.parents[1] / "docs" / page).read_text("utf-8").replace("\\\n", " ")
    given: dict[str, set[str]] = {}
    for name, rest in re.findall(r"^aws cloudformation deploy .*--template-file \w+/(?:aws/)?(\w+)\.yaml(.*)$", text, re.MULTILINE):
        given.setdefault(name, set()).update(re.findall(r"(\w+)=", rest.partition("--parameter-overrides")[2]))
    assert given
    for name, named in given.items():
        parameters = template(name)["Parameters"]
        needed = {key for key, one in parameters.items() if "Default" not in one}
        assert needed <= named <= parameters.keys(), name
    if page == "aws.md":
        assert {*given, "ingestion", "worker"} == set(templates())
