"""Every part that the stack knows, by name, and the workers that were asked for."""

from __future__ import annotations

from infra.settings import process_environment, worker_environment
from infra.stack.aws import aws_part
from infra.stack.errors import StackError
from infra.stack.guides import guides_part
from infra.stack.java import JAVA_HOME
from infra.stack.kafka import kafka_part
from infra.stack.neo4j import neo4j_part
from infra.stack.part import SERVERS, Part
from infra.stack.postgres import postgres_part
from infra.stack.registry import registry_part
from infra.stack.s3 import s3_part
from infra.stack.state import Desired, StackState, WorkerSpec

WORKER_FOLDER = "workers"


def server(state: StackState, name: str, desired: Desired) -> Part:
    """Describe a server of the stack.

    Raises:
        StackError: no part has this name, or its jars are missing.
    """
    if name == "kafka":
        return kafka_part(state, is_secure=desired.is_kafka_secure)
    builders = {
        "registry": registry_part,
        "s3": s3_part,
        "postgres": postgres_part,
        "neo4j": neo4j_part,
        "guides": guides_part,
        "aws": aws_part,
    }
    if name not in builders:
        raise StackError(f"no part is named {name!r}; there are {', '.join(SERVERS)}")
    return builders[name](state)


def worker(state: StackState, name: str, spec: WorkerSpec) -> Part:
    """Describe a worker of ours."""
    return Part(
        name=name,
        argv=spec.argv,
        env=spec.env,
        folder=state.folder / WORKER_FOLDER / name,
        depends_on=spec.depends_on,
        is_worker=True,
        restarts_after_success=spec.restarts_after_success,
    )


def environment(part: Part) -> dict[str, str]:
    """Return the whole environment of a part's process."""
    if part.is_worker:
        return worker_environment(part.env)
    return process_environment({"JAVA_HOME": str(JAVA_HOME), **part.env})
