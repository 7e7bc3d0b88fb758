"""Functions served here as on AWS: its zip built and unpacked, one environment, and the event-source mapping before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

from domain.errors import Fenced, LogError
from infra.clients import Clients
from infra.lambdas import package
from infra.lambdas.aws_parts import SqsDeadLetters
from infra.lambdas.checkpoints import CHECKPOINTS, DynamoCheckpoints
from infra.lambdas.event_source import DEFAULTS, Delivered, EventSourceOptions, KinesisEventSource
from infra.lambdas.functions import Function
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.kinesis_road import prepare
from infra.lambdas.runtime import FunctionHost, Invocation
from infra.settings import SECRETS_FILE_VARIABLE, Settings, aws_variables
from infra.stack.state import write_private
from projections.errors import StoreUnavailable

FOLDER = "lambdas"
_IDLE_S = 0.25  # between two looks at quiet shards: Kinesis answers five a second and shard, to all readers together
_AWAY_S = 2.0

_log = structlog.get_logger(__name__)


@contextmanager
def hosted(function: Function, settings: Settings) -> Iterator[FunctionHost]:
    """A warm-to-be environment of a function, its zip built anew; its output goes to `log_file`."""
    folder = settings.stack_dir / FOLDER
    code = package.unpacked(package.build(function, folder), folder)
    runtime = package.runtime(folder)
    log_file(settings, function).parent.mkdir(parents=True, exist_ok=True)
    secrets = folder / f"{function.name}.secrets.json"
    write_private(secrets, json.dumps(_revealed({name: getattr(settings, name) for name in function.settings})))
    region = {**aws_variables(), "AWS_REGION": settings.aws.region, "AWS_DEFAULT_REGION": settings.aws.region}
    with (
        log_file(settings, function).open("ab") as log,
        FunctionHost(
            function.name, code, runtime, function.handler, {SECRETS_FILE_VARIABLE: str(secrets), **region},
            timeout_s=function.timeout_s, memory_mb=function.memory_mb, log=log,
        ) as host,
    ):  # fmt: skip
        yield host


def checkpoints_of(clients: Clients, function: str) -> DynamoCheckpoints:
    """Where a function's mapping keeps how far it has read: each reads the stream for itself."""
    # The first function's keys are as they were before there was a second.
    return DynamoCheckpoints(clients.aws("dynamodb"), CHECKPOINTS, "" if function == INGESTION else f"{function}/")


def log_file(settings: Settings, function: Function) -> Path:
    """Where a function's own output goes: beside the workers' logs, which the supervisor keeps from growing without end."""
    return settings.stack_dir / "logs" / f"{function.name}-function.log"


class EventSource(Protocol):
    """An event-source mapping."""

    def poll(self) -> int:
        """Read and deliver once; returns how many records there were.

        Raises:
            StoreUnavailable, LogError: something does not answer; a mapping that is made anew goes on from what is stored.
        """

    def close(self) -> None:
        """Let go of its clients."""


def keep_serving(
    function: Function,
    settings: Settings,
    mapping: Callable[[Callable[[dict[str, Any]], Any]], EventSource],
    stop: Event,
    on_call: Callable[[Invocation], None] = lambda invocation: None,
) -> None:
    """Feed a function until `stop`; what is away is waited for.

    Args:
        mapping: makes one that calls what it is given; made anew after each outage.

    Raises:
        Fenced: another mapping has taken over.
    """
    with hosted(function, settings) as host:

        def call(event: dict[str, Any]) -> Any:
            invocation = host.invoke(event)
            if invocation.init_ms is not None:
                _log.info("cold_start", function=function.name, init_ms=invocation.init_ms, duration_ms=invocation.duration_ms)
            on_call(invocation)
            return invocation.answer

        source: EventSource | None = None
        try:
            while not stop.is_set():
                try:
                    if source is None:
                        source = mapping(call)
                        _log.info("serving", function=function.name)
                    if not source.poll():
                        stop.wait(_IDLE_S)
                except Fenced:
                    raise
                except (StoreUnavailable, LogError) as error:
                    _log.warning("waiting", error=str(error))
                    # AWS' double forgets everything when it is started again: shards, tables and checkpoints are looked up anew.
                    if source is not None:
                        source.close()
                    source = None
                    stop.wait(_AWAY_S)
        finally:
            if source is not None:
                source.close()


def serve(
    function: Function,
    clients: Clients,
    stop: Event,
    options: EventSourceOptions = DEFAULTS,
    on_call: Callable[[Invocation], None] = lambda invocation: None,
) -> Delivered:
    """Feed the function from the Kinesis stream until `stop`. Returns what was done."""
    settings = clients.settings
    delivered = Delivered()

    def waited(seconds: float) -> None:
        stop.wait(seconds)

    def mapping(call: Callable[[dict[str, Any]], Any]) -> KinesisEventSource:
        prepare(clients)
        failures = SqsDeadLetters.named(clients.aws("sqs"), settings.kinesis.failures)
        checkpoints = checkpoints_of(clients, function.name)
        return KinesisEventSource(
            clients.aws("kinesis"),
            settings.kinesis.stream,
            call,
            function.name,
            checkpoints,
            failures,
            options,
            stopped=stop.is_set,
            sleep=waited,
            delivered=delivered,
        )

    keep_serving(function, settings, mapping, stop, on_call)
    return delivered


def _revealed(groups: dict[str, Any]) -> dict[str, Any]:
    """Settings as the secrets file holds them: given ones alone, secrets in clear."""
    return {
        name: {
            key: value.get_secret_value() if isinstance(value, SecretStr) else value if isinstance(value, str | int | float) else str(value)
            for key, value in dict(group).items()
            if value is not None
        }
        for name, group in groups.items()
    }
