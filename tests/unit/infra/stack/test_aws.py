"""The AWS double's list of resources: written down once, made again in order, what exists already is fine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.stack import aws
from infra.stack.state import StackState


class Service:
    """Stands in for a client: records calls, and fails as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: str | None = None

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            if self.error is not None:
                raise ClientError({"Error": {"Code": "X", "Message": self.error}}, operation)
            self.calls.append((operation, arguments))
            return {"ok": True}

        return call


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    monkeypatch.setattr(aws, "_client", lambda state, name: made)
    return made


@pytest.fixture
def state(tmp_path: Path) -> StackState:
    return StackState(tmp_path)


def test_resources_come_back_in_the_order_in_which_they_were_made(state: StackState, service: Service) -> None:
    aws.create(state, "sns", "create_topic", {"Name": "a"})
    aws.create(state, "sqs", "create_queue", {"QueueName": "b"})
    aws.create(state, "sns", "create_topic", {"Name": "a"})
    service.calls.clear()
    aws.restore(state)
    assert service.calls == [("create_topic", {"Name": "a"}), ("create_queue", {"QueueName": "b"})]


def test_a_resource_that_exists_is_fine_and_another_refusal_is_not(state: StackState, service: Service) -> None:
    aws.create(state, "sqs", "create_queue", {"QueueName": "b"})
    service.error = "queue already exists"
    aws.restore(state)
    service.error = "access denied"
    with pytest.raises(ClientError, match="denied"):
        aws.restore(state)


def test_what_the_service_refused_is_not_remembered(state: StackState, service: Service) -> None:
    service.error = "access denied"
    with pytest.raises(ClientError):
        aws.create(state, "sqs", "create_queue", {"QueueName": "b"})
    assert not aws.resources_file(state).exists()


def test_forgotten_resources_stay_away(state: StackState, service: Service) -> None:
    aws.create(state, "sqs", "create_queue", {"QueueName": "b"})
    aws.forget(state)
    service.calls.clear()
    aws.restore(state)
    assert service.calls == []
