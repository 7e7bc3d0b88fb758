"""Figures as log lines that CloudWatch turns into metrics.

Source: CloudWatch Logs, "Embedded metric format specification".
"""

from __future__ import annotations

import json
from collections.abc import Mapping

NAMESPACE = "Tidemark"


def metrics_line(dimensions: Mapping[str, str], figures: Mapping[str, tuple[float, str]], now_ms: int) -> str:
    """One line in the namespace `Tidemark`.

    Args:
        dimensions: name → value; together they name what is measured.
        figures: name → (value, CloudWatch's unit).
        now_ms: milliseconds since 1970.
    """
    metrics = [{"Name": name, "Unit": unit} for name, (_, unit) in figures.items()]
    said = {"Namespace": NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": metrics}
    line = {"_aws": {"Timestamp": now_ms, "CloudWatchMetrics": [said]}, **dimensions}
    return json.dumps({**line, **{name: value for name, (value, _) in figures.items()}})
