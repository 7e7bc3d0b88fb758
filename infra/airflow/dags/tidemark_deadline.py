"""What is done when a run of the DAG misses its deadline; the triggerer imports it, so it lies where that looks (docs/airflow.md)."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("airflow.task")


async def missed(**context: Any) -> None:
    """Leave an error where alarms look; the run itself goes on."""
    run = context.get("context", {}).get("dag_run", {})
    log.error("deadline_missed: the run %s has not ended in time; its open tasks say where it stands", run)
