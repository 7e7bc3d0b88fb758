"""Parts of the warehouse that are replayed from the log by themselves: its scores, its alerts.

Their rows know their records, so no second generation is needed: slice by slice they are deleted and applied again (`infra.repair`)
while worker and readers go on. What is done stands in a note, so that a killed run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.errors import InvalidValue
from domain.log import Position
from infra.composition import Composition
from infra.rebuild_estimate import Estimate, estimate, keep_rate
from infra.rebuild_notes import Notes
from infra.repair import Progress, RepairResult, repair
from infra.stack import Stack
from schema_registry.contracts import CASE_EVENTS, RESCORE_EVENTS, SCORE_EVENTS

WAREHOUSE = "warehouse"
RESUMES_WITHIN = timedelta(days=1)  # of an older run what was done may have been damaged since


@dataclass(frozen=True, slots=True)
class Part:
    """Topics whose records give just these tables, and dimensions' rows that they name."""

    topics: tuple[str, ...]
    tables: tuple[str, ...]


PARTS: Mapping[str, Part] = {
    "scores": Part((SCORE_EVENTS, RESCORE_EVENTS), ("fact_score", "fact_rescore")),
    "alerts": Part((CASE_EVENTS,), ("fact_alert", "fact_alert_transaction", "fact_alert_rule", "fact_case_event")),
}
"""By the name under which it is rebuilt."""


@dataclass(frozen=True, slots=True)
class PartResult:
    """What was done, `was_resumed` where an interrupted run was gone on with."""

    name: str
    repaired: RepairResult
    was_resumed: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {**self.repaired.as_json(), "name": self.name, "was_resumed": self.was_resumed, "seconds": round(self.seconds, 2)}


def plan_part(composition: Composition, stack: Stack, name: str) -> Estimate:
    """What `rebuild_part` would read, write and take. Changes nothing.

    Raises:
        InvalidValue: the warehouse is Redshift.
        HistoryIncomplete: it could not be done: records are missing.
        StoreUnavailable: the warehouse does not answer.
    """
    part, generation = PARTS[name], _generation(composition)
    notes = _notes(stack, name, generation)
    plan = composition.log.history.plan(part.topics, notes.position, prefers_archive=False)
    rows = {table: n for table, n in composition.warehouse(generation).stored_counts().items() if table in part.tables}
    folder = stack.state.folder / "rebuild"
    how = "in place, slice by slice: no second generation; worker and readers go on"
    return estimate(composition, name, plan, part.topics, (generation, generation), rows, folder, how)


def rebuild_part(composition: Composition, stack: Stack, name: str, progress: Progress = lambda done, total: None) -> PartResult:
    """Replay a part of `PARTS` from its first record up to the warehouse's checkpoint, which stays where it is.

    Raises:
        as `infra.repair.repair`.
        InvalidValue: the warehouse is Redshift.
    """
    started = time.monotonic()
    part, generation = PARTS[name], _generation(composition)
    notes = _notes(stack, name, generation)
    was_resumed = bool(notes.position)
    reached = dict(notes.position)
    notes.generation = notes.replaced = generation
    notes.file.parent.mkdir(parents=True, exist_ok=True)

    def keep(done: Position) -> None:
        reached.update(done)
        notes.position = reached
        notes.write("building")

    end = composition.log.ends(part.topics)
    repaired = repair(composition, WAREHOUSE, start=dict(reached), end=end, progress=progress, on_slice=keep)
    notes.position = {}
    notes.write("done")
    seconds = time.monotonic() - started
    keep_rate(notes.file.parent, name, repaired.records, seconds)
    return PartResult(name, repaired, was_resumed, seconds)


def _generation(composition: Composition) -> int:
    """The live generation.

    Raises:
        InvalidValue: it cannot be repaired in place.
    """
    if composition.redshift is not None:
        raise InvalidValue("name", "a part of the warehouse is not rebuilt by itself on Redshift: `tidemark rebuild warehouse`")
    return composition.log.generations().get(WAREHOUSE, 1)


def _notes(stack: Stack, name: str, generation: int) -> Notes:
    """Up to where an interrupted run has come; nothing where there is none to go on with."""
    notes = Notes.read(stack.state.folder / "rebuild" / f"{name}.json")
    is_ours = notes.stage == "building" and notes.generation == generation
    if not is_ours or datetime.now(UTC) - datetime.fromtimestamp(notes.file.stat().st_mtime, UTC) > RESUMES_WITHIN:
        notes.position = {}
    return notes
