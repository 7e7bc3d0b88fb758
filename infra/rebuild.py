"""Rebuild: the next generation of a read model beside the live one, from the first event, proven, then swapped in; and the way back.

The live worker goes on all the time but for a moment at the swap, in which the new generation catches up to the head. Safe to kill
and to run again: what was done stands in a file below the stack's folder, and each step may be repeated. What the new generation
could not take is written down aside; it enters the quarantine topic in the transaction that swaps.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from domain.errors import TidemarkError
from domain.log import NewRecord, Position
from infra.composition import Composition
from infra.history_source import HistorySource
from infra.instances import worker_of
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from infra.read_models import read_model
from infra.rebuild_estimate import Estimate, estimate, keep_rate
from infra.rebuild_notes import Notes, SetAside
from infra.rebuild_targets import Target, target_of
from infra.stack import Stack
from projections.fingerprint import Fingerprint, fingerprints
from projections.quarantine import APPLIED, QuarantineKey, as_record, offloaded, replayed_record
from projections.runner import Flushed, Runner
from projections.verify import Aside, Proof, Verifier, raw_table
from projections.work import RawWork, SinkWork, Work
from schema_registry.contracts import CONTROL_EVENTS
from schema_registry.record_codec import RecordCodec

NEAR_RECORDS = 5_000  # so close to the head the live worker may be stopped: the rest takes a second or two
CATCH_UP_ATTEMPTS = 5  # rounds in which the distance to the head may fail to shrink before it is said that it never will
WAIT_S, WAIT_ATTEMPTS = 0.5, 20  # a live worker that keeps up passes any position within that
READ_ATTEMPTS = 3  # of a live generation that may move while it is read
Progress = Callable[[str, int, int], None]
"""Told the stage, records done and records in all."""


class RebuildRefused(TidemarkError):
    """A generation was not swapped in; the live one is untouched. The message says why."""


@dataclass(slots=True)
class RebuildResult:
    """What a rebuild, a swap or a rollback did.

    `records` counts what this run read; `released` the quarantined records that the new generation took; `caught_up_s` is the time
    that a rollback's generation took to the head, `worker_paused_s` how long the live worker stood still, `readers_paused_s` how long
    readers waited at most. `compared` says how the two generations compare at one position.
    """

    name: str
    generation: int
    replaced: int
    is_live: bool = False
    records: int = 0
    seconds: float = 0.0
    caught_up_s: float = 0.0
    worker_paused_s: float = 0.0
    readers_paused_s: float = 0.0
    quarantined: int = 0
    released: int = 0
    was_resumed: bool = False
    proof: Proof | None = None
    compared: str = ""
    differences: list[str] = field(default_factory=list)
    old: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "name": self.name, "generation": self.generation, "replaced": self.replaced, "is_live": self.is_live,
            "records": self.records, "seconds": round(self.seconds, 2), "caught_up_s": round(self.caught_up_s, 2),
            "worker_paused_s": round(self.worker_paused_s, 3), "readers_paused_s": round(self.readers_paused_s, 3),
            "quarantined": self.quarantined, "released": self.released, "was_resumed": self.was_resumed,
            "verify": self.proof.as_json() if self.proof is not None else None, "compared": self.compared,
            "differences": self.differences, "old": self.old,
        }  # fmt: skip


def rebuild(
    composition: Composition,
    stack: Stack,
    name: str,
    *,
    actor: str,
    progress: Progress = lambda stage, done, total: None,
    stop: Event | None = None,
    swaps: bool = True,
    by_spark: Callable[[str], None] | None = None,
) -> RebuildResult:
    """Build the next generation of a read model beside the live one, prove it equal to the log, make it live.

    Args:
        by_spark: let Spark fill it from the archive (the curated table alone); told what takes long beforehand.
        swaps: whether it becomes live at once; else `swap` does that later.

    Raises:
        RebuildRefused: it does not equal the log, or the log grows faster than it is read: nothing was swapped.
        HistoryIncomplete: records of the log are neither in Kafka nor in the archive.
        StoreUnavailable: the store does not answer; run it again, and it goes on.
        LogError: Kafka does not answer.
        StackError: a server cannot be started.
    """
    with _job(composition, stack, name, actor, progress, stop, by_spark) as job:
        notes, live = job.notes, job.target.live()
        if notes.kind == "rollback" and notes.stage in ("building", "swapping"):
            raise RebuildRefused(f"a rollback of {name} was interrupted: run `tidemark rebuild {name} --rollback`, which ends it")
        is_flipped = notes.stage == "swapping" and notes.generation == live
        is_underway = notes.stage in ("building", "verified", "swapping") or (notes.stage == "importing" and job.target.is_filled_at_once)
        job.result.was_resumed = is_underway and (notes.replaced == live or is_flipped)
        if not job.result.was_resumed:
            job.begin("rebuild", live + 1, live)
        if notes.stage == "importing":
            job.fill()
        if notes.stage == "building" or (notes.stage == "verified" and not swaps):
            job.build()
        if swaps:
            job.swap()
        return job.done()


def swap(
    composition: Composition, stack: Stack, name: str, *, actor: str, progress: Progress = lambda stage, done, total: None
) -> RebuildResult:
    """Make the generation live that a rebuild has built and proven.

    Raises:
        RebuildRefused: there is none.
    """
    with _job(composition, stack, name, actor, progress, None) as job:
        notes, live = job.notes, job.target.live()
        is_ready = notes.kind == "rebuild" and notes.stage in ("verified", "swapping") and live in (notes.replaced, notes.generation)
        if not is_ready:
            raise RebuildRefused(f"no generation of {name} stands proven beside the live one: run `tidemark rebuild {name} --no-swap`")
        job.result.was_resumed = True
        job.swap()
        return job.done()


def rollback(
    composition: Composition, stack: Stack, name: str, *, actor: str, progress: Progress = lambda stage, done, total: None
) -> RebuildResult:
    """Return to the generation that the last swap replaced, from its own checkpoint caught up to the head first.

    Raises:
        RebuildRefused: there was no swap, or that generation is gone.
        HistoryIncomplete: records since its checkpoint are neither in Kafka nor in the archive.
    """
    with _job(composition, stack, name, actor, progress, None) as job:
        notes, live = job.notes, job.target.live()
        is_underway = notes.kind == "rollback" and notes.stage in ("building", "swapping")
        job.result.was_resumed = is_underway
        if not is_underway:
            if notes.kind == "rebuild" and notes.stage == "swapping":
                raise RebuildRefused(f"a swap of {name} was interrupted: run `tidemark rebuild {name} --swap` first, which ends it")
            last = composition.log.last_swap(name)
            if last is None or last[0] != live:
                raise RebuildRefused(f"{name} was never swapped: there is no generation to return to")
            if not job.target.exists(last[1]):
                raise RebuildRefused(f"generation {last[1]} of {name} is gone: rebuild it")
            if notes.kind == "rebuild" and notes.stage in ("importing", "building", "refused", "verified"):
                if notes.generation == last[1]:  # numbers are used again after a rollback: this is not what was replaced
                    raise RebuildRefused(
                        f"generation {last[1]} of {name} is one that a rebuild began after the last swap, not the one that was replaced:"
                        f" there is no generation to return to. `tidemark rebuild {name}` goes on with it"
                    )
                job.target.discard(notes.generation)  # it would stand on the generation that is left
            job.begin("rollback", last[1], live)
        job.swap()
        return job.done()


def plan_of(composition: Composition, stack: Stack, name: str) -> Estimate:
    """What `rebuild` would read, write and take. Changes nothing.

    Raises:
        HistoryIncomplete: it could not be done: records are missing.
    """
    folder = stack.state.folder / "rebuild"
    notes = Notes.read(folder / f"{name}.json")
    target = target_of(name, composition, stack)
    live = target.live()
    topics = _topics(composition, name)
    plan = composition.log.history.plan(topics, {}, prefers_archive=name != "archive")
    generation = notes.generation if notes.stage in ("importing", "building", "verified") and notes.replaced == live else live + 1
    return estimate(composition, name, plan, topics, (generation, live), target.rows(), folder, target.how)


class _Job:
    """One run of one of the three, with what they share."""

    def __init__(
        self, composition: Composition, stack: Stack, name: str, actor: str, progress: Progress, stop: Event | None, folder: Path,
        by_spark: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.composition, self.stack, self.name, self.actor = composition, stack, name, actor
        self.progress, self.stop, self.folder = progress, stop or Event(), folder
        self.started = time.monotonic()
        self.notes = Notes.read(folder / f"{name}.json")
        self.target: Target = target_of(name, composition, stack, by_spark)
        self.codec = RecordCodec(composition.clients.catalog)
        self.aside = SetAside(folder / f"{name}-aside.jsonl", self.codec)
        self.result = RebuildResult(name, self.notes.generation, self.notes.replaced)

    def begin(self, kind: Any, generation: int, replaced: int) -> None:
        self.aside.forget()
        self.notes.kind, self.notes.generation, self.notes.replaced = kind, generation, replaced
        self.notes.came_from = self.notes.position = {}
        if kind == "rebuild":
            # The note first: killed between the two, the same generation is discarded again.
            self.notes.write("refused")
            self.target.discard(generation)
        self.notes.write("importing" if kind == "rebuild" and self.target.is_filled_at_once else "building")

    def fill(self) -> None:
        """Fill the new generation at once with all that the log holds now. What a killed run left half done is thrown away."""
        began = time.monotonic()
        self.aside.forget()
        self.target.discard(self.notes.generation)
        with self.target.filling(self.notes.generation, self.progress) as store:
            self._catch_up(store, self.composition.log.ends(store.topics), stage="read")
            self._take_left_over(store)
        keep_rate(self.folder, self.name, self.result.records, time.monotonic() - began)
        self.notes.write("building")

    def _take_left_over(self, store: Any) -> None:
        """Records that whoever filled the generation could not read: the engine has the last word, and sets aside what it cannot either."""
        work = SinkWork(store, self.composition.clients.catalog, self.aside, self.aside.order(store, self._dropped()))
        for batch in self.target.left_over():
            tps = {(batch.topic, partition) for partition in batch.partitions.tolist()}
            here = {tp: offset for tp, offset in work.load_position().items() if tp in tps}
            work.process([batch], [], here, here)

    def build(self) -> None:
        """Run the new generation to the head and prove it there, the live one going on beside it."""
        with self.target.building(self.notes.generation) as store:
            self._approach(store)
            self.result.proof = self._prove(store)
            if not self.result.proof.is_ok:
                self.notes.write("refused")
                raise RebuildRefused(
                    f"{self.name}: generation {self.notes.generation} does not equal the log, so it stays aside:"
                    f" {self.result.proof.problems[0]}"
                )
        self.notes.write("verified")

    def swap(self) -> None:
        """Catch up to the head with the live worker stopped, swap, and start the worker on the new generation."""
        notes, target = self.notes, self.target
        self.progress("swap", 0, 1)
        is_said = self.composition.log.last_swap(self.name) == (notes.generation, notes.replaced)
        paused = None
        try:
            if not (is_said or target.live() == notes.generation):
                with target.building(notes.generation) as store:
                    began = time.monotonic()
                    if notes.kind == "rollback" and not notes.came_from:
                        notes.came_from = dict(store.load_position())
                        notes.write()
                    self._approach(store)
                    if notes.kind == "rollback":
                        self.result.caught_up_s = time.monotonic() - began
                    paused = self._pause_worker()
                    self._catch_up(store, self.composition.log.ends(store.topics), stage="swap")
                    self._refresh(store)
                    notes.position = _of_topics(store.load_position(), store.topics)
                notes.write("swapping")
            if not is_said:
                events = self._events()
                self.result.readers_paused_s += target.before_event(notes.generation) if target.live() != notes.generation else 0.0
                transactions = KafkaTransactions(
                    self.composition.clients.kafka, f"tidemark-rebuild-{self.name}", f"tidemark-rebuild-{self.name}", (),
                    self.composition.clients.admin,
                )  # fmt: skip
                transactions.commit((), offloaded(self.codec, events, self.composition.payloads), {})
                transactions.close()
            self.result.readers_paused_s += target.after_event(notes.generation)
            notes.write("done")
            self.result.is_live = True
            self.aside.forget()
        finally:
            self._resume_worker()
            if paused is not None:
                self.result.worker_paused_s = time.monotonic() - paused
        self.progress("swap", 1, 1)

    def done(self) -> RebuildResult:
        result = self.result
        result.generation, result.replaced = self.notes.generation, self.notes.replaced
        result.old = self.target.describe(self.notes.replaced if result.is_live else self.notes.generation)
        result.seconds = time.monotonic() - self.started
        return result

    def _approach(self, store: Any) -> None:
        """Read until close to the head; the live worker goes on."""
        began, before = time.monotonic(), self.result.records
        is_filled = before > 0 and self.target.is_filled_at_once  # then the rate is known already, and what is left says little
        last, failed = None, 0
        while failed < CATCH_UP_ATTEMPTS:
            self._catch_up(store, self.composition.log.ends(store.topics))
            ends, position = self.composition.log.ends(store.topics), store.load_position()
            away = sum(max(0, end - position.get(tp, 0)) for tp, end in ends.items())
            if away <= NEAR_RECORDS:
                if not is_filled:
                    keep_rate(self.folder, self.name, self.result.records - before, time.monotonic() - began)
                return
            failed += last is not None and away >= last
            last = away
        raise RebuildRefused(
            f"the log grew faster than {self.name} reads it, {CATCH_UP_ATTEMPTS} times over: pause what writes to it, then run it again"
        )

    def _catch_up(self, store: Any, until: Position, is_exact: bool = False, stage: str = "build") -> None:
        """Read up to `until`; with `is_exact` not a record further, whatever is there."""
        work: Work = (
            RawWork(store)
            if self.name == "archive"
            else SinkWork(store, self.composition.clients.catalog, self.aside, self.aside.order(store, self._dropped()))
        )
        before = store.load_position()
        total = sum(max(0, end - before.get(tp, 0)) for tp, end in until.items())
        if not total:
            return
        done = 0

        def flushed(report: Flushed) -> None:
            nonlocal done
            done += report.records
            self.progress(stage, done, max(total, done))

        # Alone and without a group: what is read is this store's own position, and nobody shares it. An archive is read from Kafka
        # as far as that goes, so that it is a second witness and not a copy of the first.
        kafka = KafkaSource(self.composition.clients.kafka, store.topics, "tidemark-rebuild", "", is_alone=True)
        source = HistorySource(
            self.composition.log.history, kafka, store.topics, prefers_archive=self.name != "archive", end=until if is_exact else None
        )
        Runner(source, work, read_model(self.name).rebuild_policy, flushed).run(self.stop, until=until)
        self.result.records += done
        if self.stop.is_set():
            raise RebuildRefused("stopped; run it again and it goes on where it stopped")

    def _dropped(self) -> frozenset[QuarantineKey]:
        """What was given up stays so in every generation."""
        return frozenset(self.composition.log.quarantine_state().dropped)

    def _prove(self, store: Any) -> Proof:
        """Prove the new generation equal to the log, and compare it with the live one, all three at one position."""
        self.progress("verify", 0, 1)
        live = self._still(_of_topics(store.load_position(), store.topics))
        if live is not None:
            self._catch_up(store, _of_topics(live[0], store.topics), is_exact=True)
            self.progress("verify", 0, 1)
        self._refresh(store)
        log = self.composition.log
        here = _of_topics(store.load_position(), store.topics)
        aside = Aside(frozenset(self.aside.records), self._dropped())
        verifier = Verifier(
            lambda topics, start, end: log.read(topics, start, end), lambda topics: here, lambda: aside,
            self.composition.clients.catalog, log.starts,
        )  # fmt: skip
        proof = verifier.archive(store) if self.name == "archive" else verifier.projection(store)
        if live is None:
            self.result.compared = "the live generation has other columns, stands behind or moved all the time, so it was not compared"
        elif proof.is_ok:
            rows = ((b.topic, raw_table(b)) for b in store.read()) if self.name == "archive" else store.read_back()
            self.result.differences = _differences(live[1], fingerprints(rows))
            found = (
                f"differs from the live one in {len(self.result.differences)} tables" if self.result.differences else "equals the live one"
            )
            self.result.compared = f"at one position it {found}"
        self.progress("verify", 1, 1)
        return proof

    def _still(self, least: Position) -> tuple[Position, dict[str, Fingerprint]] | None:
        """The live generation at one position not before `least`; none where it does not get there, or never rests."""
        patience = WAIT_ATTEMPTS if self.name in self.stack.state.desired().workers else 1
        for attempt in range(patience):
            position = self.target.stands_at()
            if position and all(position.get(tp, 0) >= offset for tp, offset in least.items()):
                return next((found for found in (self.target.still() for _ in range(READ_ATTEMPTS)) if found is not None), None)
            if attempt + 1 < patience:
                time.sleep(WAIT_S)
        return None

    def _refresh(self, store: Any) -> None:
        if hasattr(store, "refresh"):
            store.refresh()

    def _events(self) -> list[NewRecord]:
        """What the swap appends: the swap itself, and what the quarantine must learn for the generation that becomes live.

        An entry that the new generation set aside is open; one that it took is not. Below the position where a rollback found its
        generation, those are open that were open when it was replaced.
        """
        notes, now = self.notes, datetime.now(UTC)
        projection = self.target.projection
        entries = {key: entry for key, entry in self.composition.log.quarantine().items() if key[0] == projection}
        # For whoever returns to the generation that is left now, after a rollback too.
        before = SetAside(self._open_file(notes.generation), self.codec)
        before.forget()
        before.append([as_record(self.codec, entry) for entry in entries.values()])
        known = SetAside(self._open_file(notes.replaced), self.codec).records if notes.kind == "rollback" else {}
        wanted = dict(self.aside.records)
        wanted |= {key: record for key, record in known.items() if key[3] < notes.came_from.get((key[1], key[2]), 0)}
        # What was given up meanwhile stays so: to set it aside anew would take that back.
        known_of = entries.keys() | self._dropped()
        fresh = [record for key, record in wanted.items() if key not in known_of]
        taken = [key for key in entries if key not in wanted and key[3] < notes.position.get((key[1], key[2]), 0)]
        swapped = {"projection": self.name, "generation": notes.generation, "replaced": notes.replaced, "known_at": now}
        self.result.quarantined, self.result.released = len(wanted), len(taken)
        return [
            *fresh,
            *(replayed_record(self.codec, key, APPLIED, self.actor, now) for key in taken),
            NewRecord(CONTROL_EVENTS, self.name.encode(), self.codec.encode("GenerationSwapped", swapped)),
        ]

    def _open_file(self, generation: int) -> Path:
        return self.folder / f"{self.name}-open-before-{generation}.jsonl"

    def _pause_worker(self) -> float | None:
        """Stop the worker's processes that the stack keeps; when, in seconds of the monotonic clock."""
        wanted = self.stack.state.desired().workers
        specs = {process: spec for process, spec in wanted.items() if worker_of(process)[0] == self.name}
        if not specs:
            return None
        self.notes.workers = specs
        self.notes.write()
        paused = time.monotonic()
        for process in specs:
            self.stack.stop_worker(process)
        return paused

    def _resume_worker(self) -> None:
        """Start the processes again that were stopped, here or by a run that was killed."""
        specs, self.notes.workers = self.notes.workers, {}
        running = self.stack.state.desired().workers
        for process, spec in specs.items():
            if process not in running:
                self.stack.start_worker(
                    process, spec.argv, spec.env, depends_on=spec.depends_on, restarts_after_success=spec.restarts_after_success
                )
        if specs:
            self.notes.write()


@contextmanager
def _job(
    composition: Composition, stack: Stack, name: str, actor: str, progress: Progress, stop: Event | None,
    by_spark: Callable[[str], None] | None = None,
) -> Iterator[_Job]:  # fmt: skip
    folder = stack.state.folder / "rebuild"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{Path(name).name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RebuildRefused(f"another rebuild of {name} runs") from None
        job = _Job(composition, stack, name, actor, progress, stop, folder, by_spark)
        job._resume_worker()  # a run that was killed in the middle of a swap left it stopped
        yield job


def _topics(composition: Composition, name: str) -> tuple[str, ...]:
    topics: tuple[str, ...] = composition.store(name).topics
    return topics


def _of_topics(position: Position, topics: tuple[str, ...]) -> Position:
    """Without the places of replayed quarantine entries, which are no partitions."""
    return {tp: offset for tp, offset in position.items() if tp[0] in topics}


def _differences(old: dict[str, Fingerprint], new: dict[str, Fingerprint]) -> list[str]:
    nothing = Fingerprint()
    pairs = [(name, old.get(name, nothing), new.get(name, nothing)) for name in sorted({*old, *new})]
    return [f"{name}: {a.rows} rows in the live one, {b.rows} in the new one" for name, a, b in pairs if a != b]


__all__ = ["Progress", "RebuildRefused", "RebuildResult", "SetAside", "plan_of", "rebuild", "rollback", "swap"]
