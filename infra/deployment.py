"""Deployment: SageMaker's own calls, then the endpoint's process, then `ModelDeployed`.

Locally the control plane is the AWS double and the container's code runs as a process of the stack. On AWS itself the endpoint is made by
infra/aws/scoring.yaml, which knows its role, image and alarms; here it is looked at, and what serves is written down.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from botocore.exceptions import BotoCoreError, ClientError

from domain.log import NewRecord
from infra.composition import Composition, NotReady
from infra.stack import Stack, aws
from schema_registry.contracts import CONTROL_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

ENDPOINT_WORKER = "endpoint"
READY_TIMEOUT_S = 30.0
ACCOUNT = "000000000000"
INSTANCE_TYPE = "ml.c5.large"
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/tidemark-endpoint"


@dataclass(frozen=True, slots=True)
class DeployResult:
    """What serves now, and from which transaction on."""

    model_version: str
    endpoint: str
    url: str
    from_seq: int

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {"model_version": self.model_version, "endpoint": self.endpoint, "url": self.url, "from_seq": self.from_seq}


def deploy_model(composition: Composition, stack: Stack, model_version: str | None = None) -> DeployResult:
    """Deploy a trained model, by default the one trained last.

    Raises:
        NotReady: no such model was trained, the endpoint does not come up, or on AWS itself it serves another model or none.
        PackageError: the package is not what `ModelTrained` says.
    """
    from ml.packaging import serving_model

    trained = [record for name, record, *_ in composition.log.events(CONTROL_EVENTS) if name == "ModelTrained"]
    chosen = [r for r in trained if model_version in (None, r["model_version"])]
    if not chosen:
        raise NotReady(f"no model {model_version or ''} was trained: run `tidemark train`".replace("  ", " "))
    model = max(chosen, key=lambda record: record["known_at"])
    data = composition.package(model["package_uri"])
    serving_model(data, model["package_sha256"])
    name = composition.settings.endpoint.name
    if composition.settings.aws.is_itself:
        url = serving_address(composition, model, name)
    else:
        _control_plane(composition, stack, model, name)
        url = _serve(stack, data, model, name)
    from_seq = composition.log.next_seq(TRANSACTION_EVENTS)
    deployed = {
        "model_version": model["model_version"], "package_sha256": model["package_sha256"], "endpoint": name,
        "from_seq": from_seq, "known_at": datetime.now(UTC),
    }  # fmt: skip
    codec = RecordCodec(composition.clients.catalog)
    composition.producer.append([NewRecord(CONTROL_EVENTS, b"model", codec.encode("ModelDeployed", deployed))])
    return DeployResult(model["model_version"], name, url, from_seq)


def serving_address(composition: Composition, model: dict[str, Any], name: str) -> str:
    """Demand that the endpoint on AWS serves this very package; returns the address that is called for scores."""
    sagemaker = composition.clients.aws("sagemaker")
    make = f"make it with infra/aws/scoring.yaml and ModelDataUrl={model['package_uri']}"
    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
        served = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])["ProductionVariants"]
        models = [sagemaker.describe_model(ModelName=one["ModelName"]) for one in served if "ModelName" in one]
    except (ClientError, BotoCoreError) as error:
        raise NotReady(f"the endpoint {name} cannot be looked at ({error}): {make}") from error
    if endpoint["EndpointStatus"] != "InService":
        raise NotReady(f"the endpoint {name} is {endpoint['EndpointStatus']}, expected InService: wait, or see its log and {make}")
    packages = {str(one.get("PrimaryContainer", {}).get("ModelDataUrl", "no package")) for one in models}
    if packages != {model["package_uri"]}:
        raise NotReady(f"the endpoint {name} serves {', '.join(sorted(packages)) or 'no model'}, expected {model['package_uri']}: {make}")
    return str(composition.clients.aws("sagemaker-runtime").meta.endpoint_url)


def _control_plane(composition: Composition, stack: Stack, model: dict[str, Any], name: str) -> None:
    """CreateModel, CreateEndpointConfig, then CreateEndpoint, or a new one in its place. What exists already is what we would make."""
    version = model["model_version"]
    image = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/tidemark-endpoint:latest"
    container = {"Image": image, "ModelDataUrl": model["package_uri"]}
    variant = {"VariantName": "main", "ModelName": version, "InitialInstanceCount": 1, "InstanceType": INSTANCE_TYPE}
    make = _maker(composition, stack)
    make("create_model", {"ModelName": version, "ExecutionRoleArn": _ROLE, "PrimaryContainer": container})
    make("create_endpoint_config", {"EndpointConfigName": version, "ProductionVariants": [variant]})
    if not make("create_endpoint", {"EndpointName": name, "EndpointConfigName": version}):
        sagemaker = composition.clients.aws("sagemaker")
        if sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] != version:
            sagemaker.delete_endpoint(EndpointName=name)  # the double has no UpdateEndpoint
            make("create_endpoint", {"EndpointName": name, "EndpointConfigName": version})


def _maker(composition: Composition, stack: Stack) -> Callable[[str, dict[str, Any]], bool]:
    """Makes a SageMaker resource and tells whether it was new. On the AWS double it is remembered, so that it outlives a restart."""
    is_double = "aws" in stack.local_parts()

    def make(operation: str, arguments: dict[str, Any]) -> bool:
        try:
            if is_double:
                aws.create(stack.state, "sagemaker", operation, arguments)
            else:
                getattr(composition.clients.aws("sagemaker"), operation)(**arguments)
        except ClientError as error:
            if any(words in str(error).lower() for words in ("already exist", "existing")):
                return False
            raise
        return True

    return make


def _serve(stack: Stack, data: bytes, model: dict[str, Any], name: str) -> str:
    folder = stack.state.folder / "endpoint"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{model['model_version']}.tar.gz"
    fresh = file.with_suffix(".tmp")
    fresh.write_bytes(data)
    fresh.replace(file)
    port = stack.state.port(ENDPOINT_WORKER, "http")
    stack.start_worker(ENDPOINT_WORKER, _command(file, model["package_sha256"], port, name))
    url = f"http://127.0.0.1:{port}"
    _wait(url, model["model_version"])
    return url


def _command(package: Path, sha256: str, port: int, name: str) -> list[str]:
    return [
        sys.executable, "-m", "ml.inference", "--model", str(package), "--sha256", sha256,
        "--host", "127.0.0.1", "--port", str(port), "--name", name,
    ]  # fmt: skip


def _wait(url: str, version: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            if httpx.get(f"{url}/ping", timeout=2.0).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise NotReady(f"the endpoint for {version} did not come up in {READY_TIMEOUT_S:.0f} s; see its log in the state folder")
        time.sleep(0.1)
