"""The functions that ship: what they run, what they bring along, and the limits that templates and the local host give them."""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import InvalidValue
from infra.lambdas.card_alerts import CARD_ALERTS
from infra.lambdas.fraud_rules import FRAUD_RULES
from infra.lambdas.kinesis_ingestion import INGESTION
from infra.lambdas.stream_alerts import STREAM_ALERTS


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function.

    module: holds `handler`; requirements: distributions beside Lambda's own image (boto3), by name, at the versions of the lock;
    settings: the groups of settings that it may know.
    """

    name: str
    module: str
    requirements: tuple[str, ...]
    timeout_s: float
    memory_mb: int
    settings: tuple[str, ...] = ("kafka", "registry", "s3", "aws")

    @property
    def handler(self) -> str:
        """What Lambda is told to call."""
        return f"{self.module.replace('.', '/')}.handler"


_LOG = ("confluent-kafka[schemaregistry]", "fastavro", "pydantic-settings")  # to read and write the log
_STREAM = ("kafka", "registry", "s3", "aws", "kinesis")
FUNCTIONS = {
    INGESTION: Function(INGESTION, "infra.lambdas.kinesis_app", _LOG, 60.0, 512, _STREAM),
    FRAUD_RULES: Function(FRAUD_RULES, "infra.lambdas.fraud_rules_app", _LOG, 60.0, 512, _STREAM),
    CARD_ALERTS: Function(
        CARD_ALERTS, "infra.lambdas.card_alerts_app", (*_LOG, "psycopg[binary]"), 60.0, 512,
        ("kafka", "registry", "s3", "aws", "warehouse", "card_alerts"),
    ),
    STREAM_ALERTS: Function(STREAM_ALERTS, "infra.lambdas.stream_alerts_app", ("pydantic-settings",), 60.0, 256, ("aws", "spark")),
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
