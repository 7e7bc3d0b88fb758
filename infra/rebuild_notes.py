"""What a rebuild writes down beside its work, so that it may be killed anywhere and goes on: its stage, and what it set aside."""

from __future__ import annotations

import base64
import json
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
    generation, `position` where it was swapped; `worker` is the live worker while it is stopped, which a kill must not lose.
    """

    file: Path
    kind: Kind = "rebuild"
    generation: int = 0
    replaced: int = 0
    stage: Stage = ""
    came_from: Position = field(default_factory=dict)
    position: Position = field(default_factory=dict)
    worker: WorkerSpec | None = None

    @classmethod
    def read(cls, file: Path) -> Notes:
        """What stands in the file; nothing where there is none."""
        notes = cls(file)
        with suppress(OSError):
            found = json.loads(file.read_text("utf-8"))
            notes.kind = found.get("kind", "rebuild")
            notes.generation, notes.replaced, notes.stage = int(found["generation"]), int(found["replaced"]), found["stage"]
            notes.came_from, notes.position = position_of(found.get("came_from", {})), position_of(found["position"])
            worker = found.get("worker")
            if worker is not None:
                notes.worker = WorkerSpec(
                    tuple(worker["argv"]), worker["env"], tuple(worker["depends_on"]), worker["restarts_after_success"]
                )
        return notes

    def write(self, stage: Stage | None = None) -> None:
        """Keep what is known, whole or not at all."""
        self.stage = stage if stage is not None else self.stage
        worker = None
        if self.worker is not None:
            worker = {
                "argv": list(self.worker.argv), "env": dict(self.worker.env), "depends_on": list(self.worker.depends_on),
                "restarts_after_success": self.worker.restarts_after_success,
            }  # fmt: skip
        content = {
            "kind": self.kind, "generation": self.generation, "replaced": self.replaced, "stage": self.stage,
            "came_from": plain(self.came_from), "position": plain(self.position), "worker": worker,
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


def _text(content: bytes | None) -> str:
    return base64.b64encode(content or b"").decode()
