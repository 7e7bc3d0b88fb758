"""The rest of AWS: moto's server, which keeps everything in memory, and the list of resources that brings it back.

Whoever makes a topic, a queue or an endpoint there makes it through `create`, which also writes it down; after a
restart each is made again, in order, before the part counts as ready.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from infra.stack.http import client
from infra.stack.part import Part
from infra.stack.state import LOOPBACK, StackState, write_private

REGION = "us-east-1"
# moto accepts any key; these two are no secret.
ACCESS_KEY = "tidemark"
SECRET_KEY = "tidemark"


def aws_url(state: StackState) -> str:
    """Return the address that stands in for AWS."""
    return f"http://{LOOPBACK}:{state.port('aws', 'http')}"


def aws_part(state: StackState) -> Part:
    """Describe the AWS double."""
    folder = state.part_folder("aws")
    port = str(state.port("aws", "http"))
    return Part(
        name="aws",
        argv=[sys.executable, "-c", "from moto.server import main; main()", "-H", LOOPBACK, "-p", port],
        env={"AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
        folder=folder,
        ports=(int(port),),
        probe=lambda: _probe(aws_url(state)),
        on_ready=lambda: restore(state),
        stop_timeout_s=5.0,
    )


def resources_file(state: StackState) -> Path:
    """Return the file that lists what must exist: [{service, operation, arguments}], oldest first."""
    return state.part_folder("aws") / "resources.json"


def create(state: StackState, service: str, operation: str, arguments: dict[str, Any]) -> Any:
    """Make a resource and remember it; the same one a second time is remembered once.

    Raises:
        botocore.exceptions.ClientError: the service refused.
    """
    answer = getattr(_client(state, service), operation)(**arguments)
    entry = {"service": service, "operation": operation, "arguments": arguments}
    entries = _entries(state)
    if entry not in entries:
        resources_file(state).parent.mkdir(parents=True, exist_ok=True)
        write_private(resources_file(state), json.dumps([*entries, entry], indent=1))
    return answer


def forget(state: StackState) -> None:
    """Forget every remembered resource; what runs stays."""
    resources_file(state).unlink(missing_ok=True)


def restore(state: StackState) -> None:
    """Make every remembered resource that is not there, in the order in which they were first made.

    Raises:
        botocore.exceptions.ClientError: the service refused for another reason than that it exists.
    """
    from botocore.exceptions import ClientError

    for entry in _entries(state):
        try:
            getattr(_client(state, entry["service"]), entry["operation"])(**entry["arguments"])
        except ClientError as error:
            text = str(error).lower()
            if "exist" not in text and "already" not in text:
                raise


def _entries(state: StackState) -> list[dict[str, Any]]:
    try:
        return list(json.loads(resources_file(state).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []


def _client(state: StackState, service: str) -> Any:
    import boto3

    session = boto3.session.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    return session.client(service, endpoint_url=aws_url(state))  # type: ignore[call-overload]


def _probe(url: str) -> None:
    answer = client().get(f"{url}/moto-api/data.json")
    answer.raise_for_status().json()
