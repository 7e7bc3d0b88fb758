"""Rebuild: the next generation of a read model beside the live one, from the earliest event, proven, then swapped in.

Safe to run again wherever it stopped: what it has done stands in a file below the stack's folder, and each step may be repeated.
What the new generation could not take is written down aside; it enters the quarantine topic in the transaction that swaps.
"""

from __future__ import annotations

import base64
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from domain.errors import TidemarkError
from domain.log import NewRecord, Position
from infra.composition import Composition
from infra.kafka import KafkaSource, KafkaTransactions
from infra.rebuild_targets import Target, target_of
from infra.stack import Stack
from infra.stack.state import WorkerSpec
from projections.key_order import KeyOrder
from projections.quarantine import APPLIED, QuarantineKey, offloaded, replayed_record
from projections.runner import Flushed, FlushPolicy, Runner
from projections.verify import Proof, Verifier
from projections.work import RawWork, SinkWork, Work
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec

CATCH_UP_ATTEMPTS = 5  # between two of them the log may have grown; more means that it grows faster than it is read
Progress = Callable[[str, int, int], None]
"""Told the stage, records done and records in all."""


class RebuildRefused(TidemarkError):
    """A generation was not swapped in; the live one is untouched. The message says why."""


@dataclass(slots=True)
class RebuildResult:
    """What a rebuild did. `records` counts what this run read; `released` the quarantined records that the new generation took."""

    name: str
    generation: int
    replaced: int
    records: int = 0
    seconds: float = 0.0
    quarantined: int = 0
    released: int = 0
    was_resumed: bool = False
    proof: Proof | None = None
    old: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "name": self.name, "generation": self.generation, "replaced": self.replaced, "records": self.records,
            "seconds": round(self.seconds, 2), "quarantined": self.quarantined, "released": self.released,
            "was_resumed": self.was_resumed, "verify": self.proof.as_json() if self.proof is not None else None, "old": self.old,
        }  # fmt: skip


@dataclass(slots=True)
class _Notes:
    """What a rebuild has done, in its file: the generation it makes, the one it replaces, and its stage."""

    file: Path
    generation: int = 0
    replaced: int = 0
    stage: str = ""
    position: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> _Notes:
        notes = cls(file)
        with suppress(OSError, ValueError):
            found = json.loads(file.read_text("utf-8"))
            notes.generation, notes.replaced = int(found["generation"]), int(found["replaced"])
            notes.stage, notes.position = str(found["stage"]), dict(found["position"])
        return notes

    def write(self, stage: str) -> None:
        self.stage = stage
        content = {"generation": self.generation, "replaced": self.replaced, "stage": stage, "position": self.position}
        fresh = self.file.with_suffix(".tmp")
        fresh.write_text(json.dumps(content), "utf-8")
        fresh.replace(self.file)


class SetAside:
    """A quarantine of its own while a generation is built: a file, so that an interrupted rebuild knows what it has set aside."""

    def __init__(self, file: Path, codec: RecordCodec) -> None:
        self._file, self._codec = file, codec
        self.records: dict[QuarantineKey, NewRecord] = {}
        if file.exists():
            for line in file.read_text("utf-8").splitlines():
                item = json.loads(line)
                self._keep(NewRecord(item["topic"], base64.b64decode(item["key"]), base64.b64decode(item["value"])))

    def append(self, records: list[NewRecord]) -> None:
        """See `projections.quarantine.QuarantineLog`: durable when it returns."""
        with self._file.open("a", encoding="utf-8") as out:
            for record in records:
                self._keep(record)
                key, value = (
                    base64.b64encode(record.key or b"").decode(),
                    base64.b64encode(record.value or b"").decode(),
                )
                out.write(json.dumps({"topic": record.topic, "key": key, "value": value}) + "\n")
            out.flush()

    def order(self, store: Any, dropped: frozenset[QuarantineKey]) -> KeyOrder:
        """What the new generation must not take: what it set aside before, and what was given up."""
        keys = [(key, self._codec.decode(record.value)[1]["key"]) for key, record in self.records.items()]
        return KeyOrder(store.name, getattr(store, "key_ordered", frozenset()), aside=keys, dropped=dropped)

    def _keep(self, record: NewRecord) -> None:
        _, value = self._codec.decode(record.value)
        self.records[(value["projection"], value["topic"], value["partition"], value["offset"])] = record


def rebuild(
    composition: Composition,
    stack: Stack,
    name: str,
    *,
    actor: str,
    progress: Progress = lambda stage, done, total: None,
    stop: Event | None = None,
) -> RebuildResult:
    """Build the next generation of `archive`, `warehouse` or `graph`, prove it equal to the log, make it live.

    Its worker is stopped meanwhile, and started again whatever happens.

    Raises:
        RebuildRefused: it does not equal the log, or the log grows faster than it is read: nothing was swapped.
        StoreUnavailable: the store does not answer; run it again, and it goes on.
        LogError: Kafka does not answer.
        StackError: another rebuild runs, or a server cannot be started.
    """
    folder = stack.state.folder / "rebuild"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _alone(folder / f"{name}.lock", name), _stopped_worker(stack, name):
        notes = _Notes.read(folder / f"{name}.json")
        target = target_of(name, composition, stack)
        codec = RecordCodec(composition.clients.catalog)
        live = target.live()
        was_resumed = notes.stage in ("building", "verified") and notes.replaced == live
        was_swapped = notes.stage == "verified" and notes.generation == live
        aside_file = folder / f"{name}-aside.jsonl"
        if not (was_resumed or was_swapped):
            notes.generation, notes.replaced = live + 1, live
            aside_file.unlink(missing_ok=True)
            target.discard(notes.generation)
            notes.write("building")
        aside = SetAside(aside_file, codec)
        result = RebuildResult(name, notes.generation, notes.replaced, was_resumed=was_resumed or was_swapped)
        if notes.stage == "building":
            with target.building(notes.generation) as store:
                result.records, result.proof = _build(composition, store, aside, progress, stop or Event())
                if not result.proof.is_ok:
                    notes.write("refused")
                    raise RebuildRefused(
                        f"{name}: generation {notes.generation} does not equal the log, so it stays aside: {result.proof.problems[0]}"
                    )
                notes.position = {f"{topic}/{partition}": offset for (topic, partition), offset in store.load_position().items()}
            notes.write("verified")
        progress("swap", 0, 1)
        if target.live() != notes.generation:
            target.before_event(notes.generation)
        events, result.quarantined, result.released = _events(composition, target.projection, name, notes, aside, codec, actor)
        KafkaTransactions(
            composition.clients.kafka,
            f"tidemark-rebuild-{name}",
            f"tidemark-rebuild-{name}",
            (),
            composition.clients.admin,
        ).commit((), offloaded(codec, events, composition.payloads), {})
        target.after_event(notes.generation)
        notes.write("done")
        result.old = target.describe(notes.replaced)
        aside_file.unlink(missing_ok=True)
        progress("swap", 1, 1)
    result.seconds = time.monotonic() - started
    return result


def _build(composition: Composition, store: Any, aside: SetAside, progress: Progress, stop: Event) -> tuple[int, Proof]:
    """Run the store to the head and prove it there; while the log grows, again."""
    log, catalog = composition.log, composition.clients.catalog
    dropped = frozenset(log.quarantine_state().dropped)  # what was given up stays so in every generation
    read = 0
    for _ in range(CATCH_UP_ATTEMPTS):
        ends = log.ends(store.topics)
        work: Work = RawWork(store) if store.name == "archive" else SinkWork(store, catalog, aside, aside.order(store, dropped))
        policy = FlushPolicy(100_000, 2.0) if store.name == "archive" else FlushPolicy(20_000 if store.name != "warehouse" else 50_000, 1.0)
        before = store.load_position()
        total = sum(max(0, end - before.get(tp, 0)) for tp, end in ends.items())
        done = 0

        def flushed(report: Flushed, total: int = total) -> None:
            nonlocal done
            done += report.records
            progress("build", done, max(total, done))

        # Alone and without a group: what is read is this store's own position, and nobody shares it.
        source = KafkaSource(composition.clients.kafka, store.topics, "tidemark-rebuild", "", is_alone=True)
        Runner(source, work, policy, flushed).run(stop, until=ends)
        read += done
        if stop.is_set():
            raise RebuildRefused("stopped; run it again and it goes on where it stopped")
        if hasattr(store, "refresh"):
            store.refresh()
        progress("verify", 0, 1)
        verifier = Verifier(lambda topics, start, end: log.read(topics, start, end), log.ends, frozenset(aside.records), catalog, dropped)
        proof = verifier.archive(store) if store.name == "archive" else verifier.projection(store)
        progress("verify", 1, 1)
        if proof.is_ok or not proof.lag_records:
            return read, proof
    raise RebuildRefused(f"the log grew during {CATCH_UP_ATTEMPTS} attempts to reach its head: pause what writes to it, then run it again")


def _events(
    composition: Composition, projection: str, name: str, notes: _Notes, aside: SetAside, codec: RecordCodec, actor: str
) -> tuple[list[NewRecord], int, int]:
    """What the swap appends: the swap itself, what the new generation set aside anew, and what it took of the old quarantine."""
    now = datetime.now(UTC)
    position: Position = {_place(text): offset for text, offset in notes.position.items()}
    open_keys = {key for key in composition.log.quarantine() if key[0] == projection}
    fresh = [record for key, record in aside.records.items() if key not in open_keys]
    taken = [key for key in open_keys if key not in aside.records and key[3] < position.get((key[1], key[2]), 0)]
    swap = {"projection": name, "generation": notes.generation, "replaced": notes.replaced, "known_at": now}
    released = [replayed_record(codec, key, APPLIED, actor, now) for key in taken]
    return (
        [*fresh, *released, NewRecord(CONTROL_EVENTS, name.encode(), codec.encode("GenerationSwapped", swap))],
        len(aside.records),
        len(taken),
    )


def _place(text: str) -> tuple[str, int]:
    topic, _, partition = text.rpartition("/")
    return topic, int(partition)


@contextmanager
def _alone(file: Path, name: str) -> Iterator[None]:
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RebuildRefused(f"another rebuild of {name} runs") from None
        yield


@contextmanager
def _stopped_worker(stack: Stack, name: str) -> Iterator[WorkerSpec | None]:
    """Stop the worker if the stack keeps one; start the same again at the end."""
    spec = stack.state.desired().workers.get(name)
    if spec is None:
        yield None
        return
    stack.stop_worker(name)
    try:
        yield spec
    finally:
        stack.start_worker(name, spec.argv, spec.env, depends_on=spec.depends_on, restarts_after_success=spec.restarts_after_success)


__all__ = ["Progress", "RebuildRefused", "RebuildResult", "SetAside", "Target", "rebuild"]
