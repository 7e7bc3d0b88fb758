"""AWS' double as the templates' tests use it: stacks deployed, calls recorded, and a role's policies held against calls."""

from __future__ import annotations

import ast
import fnmatch
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto.cloudformation.parsing import get_model_map

from infra.aws.policies import template
from infra.lambdas.functions import FUNCTIONS
from infra.settings import Settings, load_settings

REGION, ACCOUNT = "us-east-1", "123456789012"
BROKERS = "b-1.example:9096"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/tidemark@sha256:" + "0" * 64
PACKAGE = "s3://bucket/models/m-0123456789ab/model.tar.gz"
_CODE = "templates"  # the bucket that `aws cloudformation package` would fill
_PREFIX = {"sagemaker-runtime": "sagemaker"}
_ACTIONS = {  # where a permission has another name than the operation
    "SendMessageBatch": "SendMessage", "HeadObject": "GetObject", "HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket",
    "DeleteObjects": "DeleteObject", "PublishBatch": "Publish",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """What a policy decides on: the action, the resource's ARN, and keys of conditions."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict, compare=False)


def client(service: str, calls: list[Call] | None = None) -> Any:
    """A client of the double; notes its calls where a list is given."""
    made = boto3.client(service, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")  # type: ignore[call-overload]
    if calls is not None:
        made.meta.events.register(f"provide-client-params.{service}.*", _noting(calls))
    return made


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The calls of every client that is made inside, whoever makes it."""
    calls: list[Call] = []
    before = boto3.DEFAULT_SESSION
    boto3.setup_default_session(region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")
    assert boto3.DEFAULT_SESSION is not None
    boto3.DEFAULT_SESSION.events.register("provide-client-params", _noting(calls))
    try:
        yield calls
    finally:
        boto3.DEFAULT_SESSION = before


def deploy(name: str, given: Mapping[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """Make the stack of a template in the double; the physical names of its resources by their logical ones.

    Types that the double does not know are left out (`left_out`); what points to one is given a text in its place.

    Args:
        without: logical names of resources whose type it knows, but not as they are.
    """
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=f"tidemark-{name}", TemplateBody=json.dumps(deployable(name, without)), Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
    )  # fmt: skip
    (stack,) = cloudformation.describe_stacks(StackName=f"tidemark-{name}")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    found = cloudformation.list_stack_resources(StackName=f"tidemark-{name}")["StackResourceSummaries"]
    return {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in found}


def left_out(name: str) -> set[str]:
    """The resource types of a template that the double cannot make."""
    return {resource["Type"] for resource in template(name)["Resources"].values()} - get_model_map().keys()


def deployable(name: str, without: Collection[str] = ()) -> dict[str, Any]:
    """A template without what the double does not know, its nested templates uploaded."""
    whole = template(name)
    gone = {key for key, resource in whole["Resources"].items() if resource["Type"] in left_out(name) or key in without}
    cut = json.loads(json.dumps(whole), object_hook=lambda value: _without(value, gone))
    resources = {key: resource for key, resource in cut["Resources"].items() if key not in gone}
    for resource in resources.values():
        needed = resource.get("DependsOn", [])
        resource["DependsOn"] = [key for key in ([needed] if isinstance(needed, str) else needed) if key not in gone]
        nested = resource["Properties"].get("TemplateURL")
        if nested is not None:
            s3 = client("s3")
            s3.create_bucket(Bucket=_CODE)
            s3.put_object(Bucket=_CODE, Key=nested, Body=json.dumps(deployable(nested.removesuffix(".yaml"))).encode())
            resource["Properties"]["TemplateURL"] = f"https://s3.amazonaws.com/{_CODE}/{nested}"
    return {**cut, "Resources": resources}


def function_settings(name: str, secrets: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a deployed function reads, with these secrets in the manager; it must be the function that is built."""
    found, ours = client("lambda").get_function_configuration(FunctionName=name), FUNCTIONS[name]
    assert (found["Handler"], found["Timeout"], found["MemorySize"]) == (ours.handler, ours.timeout_s, ours.memory_mb)
    client("secretsmanager").create_secret(Name="tidemark", SecretString=secrets)
    (secret,) = client("secretsmanager").list_secrets()["SecretList"]
    for variable, value in {**found["Environment"]["Variables"], "TIDEMARK_SECRETS_ARN": secret["ARN"]}.items():
        monkeypatch.setenv(variable, str(value))
    return load_settings()


def deployed_statements(role: str) -> list[dict[str, Any]]:
    """What a role of the double may do by its own policies."""
    iam = client("iam")
    found: list[dict[str, Any]] = []
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        found += (ast.literal_eval(document) if isinstance(document, str) else document)["Statement"]
    return found


def deployed_values(name: str, made: Mapping[str, str]) -> dict[str, str]:
    """What stands for each name of a template in the double, once its stack is made."""
    whole = template(name)
    found = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT}
    for key, parameter in whole["Parameters"].items():
        if parameter["Type"] == "AWS::SSM::Parameter::Value<String>":
            found[key] = client("ssm").get_parameter(Name=parameter["Default"])["Parameter"]["Value"]
    for key, resource in whole["Resources"].items():
        found[key] = made.get(key, _stand_in(key))
        if resource["Type"] == "AWS::S3::Bucket":
            found[f"{key}.Arn"] = f"arn:aws:s3:::{made[key]}"
    return found


def is_allowed(statements: Sequence[Mapping[str, Any]], call: Call) -> bool:
    """Whether a role's statements allow a call; nothing in them denies."""
    for statement in statements:
        assert statement["Effect"] == "Allow"
        actions, resources = (item if isinstance(item, list) else [item] for item in (statement["Action"], statement["Resource"]))
        named = call.action in actions and any(fnmatch.fnmatchcase(call.resource, resource) for resource in resources)
        if named and _holds(statement.get("Condition", {}), call):
            return True
    return False


def object_calls(method: str, bucket: str, key: str, query: Mapping[str, str]) -> list[Call]:
    """The calls behind one request of S3's own protocol, for libraries that are no boto3."""
    arn = f"arn:aws:s3:::{bucket}"
    if not key:
        return [Call("s3:ListBucket", arn, {"s3:prefix": query["prefix"]} if "prefix" in query else {})]
    if method == "DELETE":
        return [Call("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", f"{arn}/{key}")]
    return [Call("s3:GetObject" if method in ("GET", "HEAD") else "s3:PutObject", f"{arn}/{key}")]


def _noting(calls: list[Call]) -> Any:
    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        service = model.service_model.service_name
        action = f"{_PREFIX.get(service, service)}:{_ACTIONS.get(model.name, model.name)}"
        context = {"s3:prefix": params["Prefix"]} if "Prefix" in params else {}
        calls.extend(Call(action, arn, context) for arn in _arns(service, model.name, params))

    return note


def _arns(service: str, operation: str, params: Mapping[str, Any]) -> list[str]:
    """The resources of a call as policies name them."""
    at = f"{REGION}:{ACCOUNT}"
    if service == "s3":
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        keys = [item["Key"] for item in params["Delete"]["Objects"]] if "Delete" in params else [params["Key"]] if "Key" in params else []
        return [f"{bucket}/{key}" for key in keys] or [bucket]
    if service == "kinesis":
        return [f"arn:aws:kinesis:{at}:stream/{params.get('StreamName') or 'tidemark-transactions'}"]  # an iterator is of a stream
    if service == "firehose":
        return [f"arn:aws:firehose:{at}:deliverystream/{params['DeliveryStreamName']}"]
    if operation in ("ListTopics", "ListQueues", "ListEndpoints"):
        return ["*"]
    if service == "sqs":
        return [f"arn:aws:sqs:{at}:{params.get('QueueName') or params['QueueUrl'].rpartition('/')[2]}"]
    if service == "sns":
        return [params.get("TopicArn") or f"arn:aws:sns:{at}:{params['Name']}"]
    if service == "dynamodb":
        return [f"arn:aws:dynamodb:{at}:table/{params['TableName']}"]
    if service == "secretsmanager":
        return [params["SecretId"]]
    kinds = {"DescribeModel": ("model", "ModelName"), "DescribeEndpointConfig": ("endpoint-config", "EndpointConfigName")}
    kind, key = kinds.get(operation, ("endpoint", "EndpointName"))
    return [f"arn:aws:sagemaker:{at}:{kind}/{params[key]}"]


def _stand_in(name: str) -> str:
    """The text in place of a resource that the double cannot make."""
    return f"left-out-{name}"


def _without(value: dict[str, Any], gone: set[str]) -> Any:
    """One object of a template with texts for what points to resources that are gone."""
    if value.get("Ref") in gone:
        return _stand_in(value["Ref"])
    attribute = value.get("Fn::GetAtt")
    if isinstance(attribute, list) and attribute[0] in gone:
        return _stand_in(attribute[0])
    if isinstance(value.get("Fn::Sub"), str):
        for name in gone:
            value["Fn::Sub"] = value["Fn::Sub"].replace(f"${{{name}}}", _stand_in(name))
    return value


def _holds(conditions: Mapping[str, Mapping[str, str | list[str]]], call: Call) -> bool:
    for operator, tests in conditions.items():
        assert operator in ("StringLike", "StringEquals"), operator
        for key, given in tests.items():
            patterns = given if isinstance(given, list) else [given]
            if key not in call.context or not any(fnmatch.fnmatchcase(call.context[key], pattern) for pattern in patterns):
                return False
    return True
