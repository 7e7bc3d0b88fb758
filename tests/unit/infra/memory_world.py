"""What a rebuild touches, in memory: a log, a store with generations, the quarantine and control topics, a supervisor. It can die
anywhere: `tick` stands at every step, and after the fatal one nothing of the dead process reaches what outlives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc

from domain.log import NewRecord, Position, Record, TopicPartition
from infra.rebuild_targets import Target
from infra.stack.state import WorkerSpec
from projections.fingerprint import Fingerprint, fingerprints
from projections.key_order import KeyOrder
from projections.protocol import EventBatch
from projections.quarantine import Quarantine, QuarantineEntry, QuarantineKey, decoded, state_of
from projections.records import RecordBatch
from schema_registry.contracts import CONTROL_EVENTS, QUARANTINE_EVENTS
from tests.unit.projections.fakes import CATALOG, CODEC, MemorySink, MemoryTable, T
from tests.unit.projections.lockstep import Killed

NAME = "warehouse"
PARTITIONS: tuple[TopicPartition, ...] = ((T, 0), (T, 1))
_QUARANTINE: TopicPartition = (QUARANTINE_EVENTS, 0)


@dataclass
class World:
    """All that outlives a process. `store_decides`: whether the store itself, not the log, says which generation is live."""

    folder: Path
    store_decides: bool
    log: dict[TopicPartition, list[Record]] = field(default_factory=lambda: {tp: [] for tp in PARTITIONS})
    quarantined: list[Record] = field(default_factory=list)
    control: list[NewRecord] = field(default_factory=list)
    tables: dict[int, MemoryTable] = field(default_factory=lambda: {1: MemoryTable()})
    served: int = 1
    takes_block_13: bool = False
    workers: dict[str, WorkerSpec] = field(default_factory=lambda: {NAME: WorkerSpec(("run", NAME), {}, (), False)})
    on_stop: Callable[[], None] = lambda: None
    on_start: Callable[[], None] = lambda: None
    on_live: Callable[[int], None] = lambda generation: None
    between: Callable[[], None] = lambda: None
    left: int | None = None
    ticks: int = 0

    def tick(self) -> None:
        """A step of a command that rebuilds. Others may do something here, and the process may die here."""
        if self.left is not None:
            if self.left <= 0:
                raise Killed
            self.left -= 1
        self.ticks += 1
        self.between()

    def append(self, partition: int, value: bytes) -> None:
        kept = self.log[T, partition]
        kept.append(Record(T, partition, len(kept), 1_000 + len(kept), b"k%d" % (len(kept) % 3), value))

    def ends(self, topics: Sequence[str] = ()) -> Position:
        return {tp: len(kept) for tp, kept in self.log.items()}

    def read(self, topics: Sequence[str], start: Position, end: Position | None = None, most: int | None = None) -> Iterator[RecordBatch]:
        for tp, kept in self.log.items():
            found = kept[start.get(tp, 0) : end.get(tp, 0) if end is not None else None][:most]
            if found:
                yield RecordBatch.of(found)

    def quarantine_since(self, start: Position) -> tuple[Iterator[Any], Position]:
        return decoded(CODEC, self.quarantined[start.get(_QUARANTINE, 0) :]), {_QUARANTINE: len(self.quarantined)}

    def quarantine_state(self) -> Quarantine:
        return state_of(self.quarantine_since({})[0])

    def quarantine(self) -> dict[QuarantineKey, QuarantineEntry]:
        return self.quarantine_state().entries

    def last_swap(self, name: str) -> tuple[int, int] | None:
        swaps = [CODEC.decode(record.value)[1] for record in self.control]
        return (int(swaps[-1]["generation"]), int(swaps[-1]["replaced"])) if swaps else None

    def live(self) -> int:
        """The generation that readers see."""
        swap = self.last_swap(NAME)
        return self.served if self.store_decides else (swap[0] if swap is not None else 1)

    def starts(self, topics: Sequence[str]) -> Position:
        return {}

    @property
    def history(self) -> World:
        return self

    def sink(self, generation: int) -> MemorySink:
        found = MemorySink(self.tables.setdefault(generation, MemoryTable()))
        found.name, found.takes_block_13 = NAME, self.takes_block_13
        return found

    def order(self, sink: MemorySink) -> KeyOrder:
        return KeyOrder(NAME, frozenset(), self.quarantine_since, sink.load_position)

    def put(self, records: Sequence[NewRecord]) -> None:
        """Append to the topics that are not events: durable, all or none."""
        for record in records:
            if record.topic == CONTROL_EVENTS:
                self.control.append(record)
            else:
                self.quarantined.append(Record(QUARANTINE_EVENTS, 0, len(self.quarantined), 0, record.key, record.value))

    @property
    def composition(self) -> Any:
        """What stands for `infra.composition.Composition`."""
        clients = SimpleNamespace(catalog=CATALOG, kafka={}, admin=None)
        producer = SimpleNamespace(append=self._append_ticking)
        return SimpleNamespace(log=self, clients=clients, payloads=None, producer=producer, store=lambda name: self.sink(self.live()))

    @property
    def stack(self) -> Any:
        """What stands for `infra.stack.Stack`."""
        state = SimpleNamespace(folder=self.folder, desired=self._desired)
        return SimpleNamespace(state=state, stop_worker=self._stop_worker, start_worker=self._start_worker)

    def _append_ticking(self, records: Sequence[NewRecord]) -> None:
        self.tick()
        self.put(records)
        self.tick()

    def _desired(self) -> Any:
        self.tick()
        return SimpleNamespace(workers=dict(self.workers))

    def _stop_worker(self, name: str) -> None:
        self.tick()
        del self.workers[name]
        self.on_stop()
        self.tick()

    def _start_worker(self, name: str, argv: Any, env: Any, **options: Any) -> None:
        self.tick()
        self.workers[name] = WorkerSpec(tuple(argv), env, (), False)
        self.on_start()
        self.tick()


class MemoryTarget(Target):
    """A read model with generations in a world. `is_defective`: what is built now has code that leaves records out."""

    projection = NAME

    def __init__(self, world: World, is_defective: bool) -> None:
        self._world, self._is_defective = world, is_defective

    def live(self) -> int:
        self._world.tick()
        return self._world.live()

    def discard(self, generation: int) -> None:
        self._world.tick()
        self._world.tables.pop(generation, None)
        self._world.tick()

    def exists(self, generation: int) -> bool:
        return generation in self._world.tables

    @contextmanager
    def building(self, generation: int) -> Iterator[MemorySink]:
        sink = self._world.sink(generation)
        sink.at_apply = sink.at_committed = self._world.tick
        if self._is_defective:
            sink.__class__ = _Lossy
        yield sink

    def stands_at(self) -> Position:
        return self._world.sink(self._world.live()).load_position()

    def still(self) -> tuple[Position, dict[str, Fingerprint]] | None:
        self._world.tick()
        sink = self._world.sink(self._world.live())
        return sink.load_position(), fingerprints(sink.read_back())

    def rows(self) -> dict[str, int]:
        return {}

    def before_event(self, generation: int) -> float:
        self._world.tick()
        if self._world.store_decides:
            self._world.served = generation
            self._world.on_live(generation)
        self._world.tick()
        return 0.0

    def describe(self, generation: int) -> str:
        return f"table {generation}"


class _Lossy(MemorySink):
    """Code with a defect: it leaves out the first record of the log."""

    def apply(self, batch: EventBatch, before: Position, after: Position) -> None:
        tables = {name: table.filter((pc.field("_partition") != 0) | (pc.field("_offset") != 0)) for name, table in batch.tables.items()}
        self.table.is_lossy |= batch.rows > sum(table.num_rows for table in tables.values())
        super().apply(EventBatch(tables), before, after)


class WorldSource:
    """Stands for `HistorySource` and for `KafkaSource` in it: the world's log from a position on."""

    def __init__(
        self, world: World, kafka: Any, topics: Sequence[str], *, prefers_archive: bool = False, end: Position | None = None
    ) -> None:
        self._world, self._end = world, end

    def open(self, load_position: Callable[[], Position], on_revoked: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._reached = dict(load_position())

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        self._world.tick()
        found = list(self._world.read((T,), self._reached, self._end or self._world.ends(), most=2))
        for batch in found:
            self._reached.update(batch.next_offsets())
        return found

    def close(self) -> None:
        pass


class WorldTransactions:
    """Stands for `KafkaTransactions`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def commit(self, appends: Sequence[Any], records: Sequence[NewRecord], position: Position) -> None:
        self._world.tick()
        self._world.put(records)
        if not self._world.store_decides:
            self._world.on_live(self._world.live())
        self._world.tick()

    def close(self) -> None:
        pass


__all__ = ["NAME", "PARTITIONS", "MemoryTarget", "World", "WorldSource", "WorldTransactions"]
