"""Alerts of the Spark job told by SNS: one message for each item that its DynamoDB table gains. Called by the table's stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.lambdas.metrics import metrics_line

STREAM_ALERTS = "stream-alerts"
_INSERTED = "INSERT"
_OURS = {"tx_id", "place", "score", "threshold", "model_version"}


@dataclass(frozen=True, slots=True)
class StreamAlertsReport:
    """What became of a batch: records of the stream, and the alerts told of."""

    records: int = 0
    alerts: int = 0

    def line(self, seconds: float, now_ms: int) -> str:
        """The figures for CloudWatch."""
        figures = {
            "Records": (self.records, "Count"), "Alerts": (self.alerts, "Count"),
            "HandlingMs": (round(seconds * 1000, 1), "Milliseconds"),
        }  # fmt: skip
        return metrics_line({"Function": STREAM_ALERTS}, figures, now_ms)


def messages(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The messages of a batch of a DynamoDB stream: effect's id and text of each item that is new.

    An item that is changed or deleted by hand is no alert, and neither is one that the job did not put: it would hold up all behind it.
    """
    found = []
    for record in records:
        if record["eventName"] != _INSERTED:
            continue
        item = record["dynamodb"]["NewImage"]
        if not item.keys() >= _OURS:
            continue
        alert = {
            "tx_id": item["tx_id"]["S"], "score": float(item["score"]["N"]), "threshold": float(item["threshold"]["N"]),
            "model_version": item["model_version"]["S"], "seq": int(item["seq"]["N"]) if "seq" in item else None,
        }  # fmt: skip
        effect = f"{STREAM_ALERTS}/{item['place']['S']}"
        found.append((effect, json.dumps({"effect_id": effect, **alert}, sort_keys=True)))
    return found
