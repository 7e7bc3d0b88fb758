"""The functions that ship: what they run, what they bring along, and the limits that templates and the local host give them."""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import InvalidValue
from infra.lambdas.kinesis_ingestion import INGESTION


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function.

    module: holds `handler`; requirements: distributions beside Lambda's own image (boto3), by name, at the versions of the lock.
    """

    name: str
    module: str
    requirements: tuple[str, ...]
    timeout_s: float
    memory_mb: int

    @property
    def handler(self) -> str:
        """What Lambda is told to call."""
        return f"{self.module.replace('.', '/')}.handler"


FUNCTIONS = {
    INGESTION: Function(
        INGESTION, "infra.lambdas.kinesis_app", ("confluent-kafka[schemaregistry]", "fastavro", "pydantic-settings"), 60.0, 512,
    ),
}  # fmt: skip
RUNTIME = ("awslambdaric", "boto3")
"""What Lambda's own Python image brings along."""


def function(name: str) -> Function:
    """A function by name.

    Raises:
        InvalidValue: there is none.
    """
    if name not in FUNCTIONS:
        raise InvalidValue("function", f"expected one of {', '.join(FUNCTIONS)}, found {name[:60]!r}")
    return FUNCTIONS[name]
