"""What a rebuild writes down beside its work, so that it may be killed anywhere and goes on: its stage, and what it set aside."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from domain.log import NewRecord, Position
from infra.stack.state import WorkerSpec
from projections.key_order import KeyOrder
from projections.quarantine import QuarantineKey
from schema_registry.record_codec import RecordCodec

Kind = Literal["rebuild", "rollback"]
Stage = Literal["", "importing", "building", "refused", "verified", "swapping", "done"]


@dataclass(slots=True)
class Notes:
    """What a rebuild of one read model has done.

    `generation` is the one that is to become live, `replaced` the one that is; `came_from` is where a rollback found its
    generation, `position` where it was swapped; `workers` are the live worker's processes while they are stopped, which a kill must
    not lose.
    """

    file: Path
    kind: Kind = "rebuild"
    generation: int = 0
    replaced: int = 0
    stage: Stage = ""
    came_from: Position = field(default_factory=dict)
    position: Position = field(default_factory=dict)
    workers: dict[str, WorkerSpec] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Notes:
        """What stands in the file; nothing where there is none."""
        notes = cls(file)
        with suppress(OSError):
            found = json.loads(file.read_text("utf-8"))
            notes.kind = found.get("kind", "rebuild")
            notes.generation, notes.replaced, notes.stage = int(found["generation"]), int(found["replaced"]), found["stage"]
            notes.came_from, notes.position = position_of(found.get("came_from", {})), position_of(found["position"])
            if found.get("worker") is not None:  # of a version that knew one process
                notes.workers = {notes.file.stem: _spec(found["worker"])}
            notes.workers |= {name: _spec(spec) for name, spec in found.get("workers", {}).items()}
        return notes

    def write(self, stage: Stage | None = None) -> None:
        """Keep what is known, whole or not at all."""
        self.stage = stage if stage is not None else self.stage
        workers = {
            name: {
                "argv": list(spec.argv), "env": dict(spec.env), "depends_on": list(spec.depends_on),
                "restarts_after_success": spec.restarts_after_success,
            }
            for name, spec in self.workers.items()
        }  # fmt: skip
        content = {
            "kind": self.kind, "generation": self.generation, "replaced": self.replaced, "stage": self.stage,
            "came_from": plain(self.came_from), "position": plain(self.position), "workers": workers,
        }  # fmt: skip
        fresh = self.file.with_suffix(".tmp")
        fresh.write_text(json.dumps(content), "utf-8")
        fresh.replace(self.file)


class SetAside:
    """Quarantine entries in a file: those of a generation that is being built, or those that were open before a swap."""

    def __init__(self, file: Path, codec: RecordCodec) -> None:
        self._file, self._codec = file, codec
        self.records: dict[QuarantineKey, NewRecord] = {}
        if file.exists():
            for line in file.read_text("utf-8").splitlines():
                with suppress(ValueError):  # the last line of a killed process: its record's position has not passed
                    item = json.loads(line)
                    self._keep(NewRecord(item["topic"], base64.b64decode(item["key"]), base64.b64decode(item["value"])))

    def append(self, records: list[NewRecord]) -> None:
        """See `projections.quarantine.QuarantineLog`: durable when it returns."""
        with self._file.open("a", encoding="utf-8") as out:
            for record in records:
                self._keep(record)
                out.write(json.dumps({"topic": record.topic, "key": _text(record.key), "value": _text(record.value)}) + "\n")
            out.flush()

    def forget(self) -> None:
        """Remove the file and what it holds."""
        self._file.unlink(missing_ok=True)
        self.records.clear()

    def order(self, store: Any, dropped: frozenset[QuarantineKey]) -> KeyOrder:
        """What a generation must not take: what it set aside before, and what was given up."""
        keys = [(key, self._codec.decode(record.value)[1]["key"]) for key, record in self.records.items()]
        return KeyOrder(store.name, getattr(store, "key_ordered", frozenset()), aside=keys, dropped=dropped)

    def _keep(self, record: NewRecord) -> None:
        _, value = self._codec.decode(record.value)
        self.records[(value["projection"], value["topic"], value["partition"], value["offset"])] = record


def plain(position: Position) -> dict[str, int]:
    """A position as JSON holds it: `topic/partition` → offset."""
    return {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(position.items())}


def position_of(found: dict[str, Any]) -> Position:
    """The position that `plain` wrote."""
    return {(name.rpartition("/")[0], int(name.rpartition("/")[2])): int(offset) for name, offset in found.items()}


def _spec(found: Mapping[str, Any]) -> WorkerSpec:
    return WorkerSpec(tuple(found["argv"]), found["env"], tuple(found["depends_on"]), found["restarts_after_success"])


def _text(content: bytes | None) -> str:
    return base64.b64encode(content or b"").decode()
