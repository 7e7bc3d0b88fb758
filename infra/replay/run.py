"""One replay from its request to its result: what is asked, checked; history warmed up; the stream fed, judged and counted."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domain.policy import Policy
from domain.values import EPOCH
from graph.features import FeatureState, TransactionColumns
from graph.restatement import Restatement
from infra.batch_sources import ArchiveSource, transaction_source
from infra.composition import NO_MODEL, Composition, NotReady
from infra.history import labels_of_log
from infra.kafka.producer import PlainProducer
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from infra.policy_files import current
from infra.replay.errors import ReplayError
from infra.replay.judging import ReplayWork
from infra.replay.outcome import Truth, Variant
from infra.replay.prices import PriceBook, Priced, micros
from infra.replay.sandbox import Feeder, Sandbox
from infra.replay.schemes import Injection, SchemeFile, injected
from infra.replay.strategy import PaperTrader, StrategyFile
from infra.replay.stream import copy_name, scaled, with_planted
from infra.rule_alerts import RULE_FIELDS, rule_rows
from ml.fields import TRANSACTION_FIELDS
from ml.rescorer import PackagedModel
from projections.runner import FlushPolicy, Runner
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.contracts import PRICE_EVENTS

FORMAT = 1  # of what a run's id stands for
FLUSH = 2_000  # transactions scored at once at most
PLAIN_FLUSH = 20_000  # the same where nothing is scored
MOST_SCALE = 100
MOST_BINS = 300  # of latency over the time of a replay
_WARM_FIELDS = tuple(dict.fromkeys((*TRANSACTION_FIELDS, *RULE_FIELDS)))

Progress = Callable[[str, int, int], None]
"""Told a stage in words, transactions done and transactions in all (0 where that is not known)."""
Bound = int | datetime
"""A seq, or a time at which transactions occurred."""
DEPLOYED, NO_SCORES = "deployed", "none"
"""What a model may be called beside its version: the one that serves, and none at all."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What is to be replayed, and under what.

    Attributes:
        since, until: the first transaction is the first with this seq, or that occurred then or later; the last comes before `until`.
        speed: seconds of history that pass in one; none for as fast as it can be judged.
        scale: how many copies of the population there are.
        policies: none for the one that holds.
        models: versions, `DEPLOYED` or `NO_SCORES`.
        react: from a transaction to what is done about its alert.
        quote: the asset in which several are added up.
        is_kept: whether the sandbox's topics stay.
    """

    since: Bound = 0
    until: Bound | None = None
    speed: float | None = None
    scale: int = 1
    schemes: SchemeFile | None = None
    policies: tuple[Policy, ...] = ()
    models: tuple[str, ...] = (DEPLOYED,)
    strategies: tuple[StrategyFile, ...] = ()
    react: timedelta = timedelta(hours=1)
    quote: str = "USD"
    is_kept: bool = False


@dataclass(slots=True)
class Latencies:
    """From the broker's append of a transaction to the commit that holds its score, in milliseconds, by the second of the replay.

    They mean something at a pace alone: without one, transactions wait in Kafka as long as there are more than are judged.
    """

    took_ms: list[NDArray[np.float64]] = field(default_factory=list)
    at_ms: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, at_ms: NDArray[np.int64], took_ms: NDArray[np.float64]) -> None:
        """Note those of one commit."""
        self.at_ms.append(at_ms)
        self.took_ms.append(np.maximum(took_ms, 0.0))

    def as_json(self) -> dict[str, Any] | None:
        """Percentiles over all, and p50, p99 and count by the second, or by several of a long replay; none where nothing was scored."""
        if not self.took_ms:
            return None
        took, at = np.concatenate(self.took_ms), np.concatenate(self.at_ms)
        p50, p95, p99 = (round(float(value), 1) for value in np.percentile(took, [50, 95, 99]))
        second = (at - at.min()) // 1000
        width = int(second.max()) // MOST_BINS + 1  # of a long replay several seconds stand together
        series = []
        for one in np.unique(second // width).tolist():
            mine = took[second // width == one]
            series.append([one * width, round(float(np.percentile(mine, 50)), 1), round(float(np.percentile(mine, 99)), 1), len(mine)])
        return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "n": len(took), "by_second": series}


@dataclass(slots=True)
class ReplayResult:
    """What was replayed and what came of it. `outcome` follows from `inputs` alone, so does `outcome_sha256`; `measured` does not."""

    run_id: str
    inputs: dict[str, Any]
    outcome: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    topics: tuple[str, ...] = ()
    is_stopped: bool = False

    @property
    def outcome_sha256(self) -> str:
        """Names what came of it: two replays of the same inputs have the same."""
        return _digest(self.outcome)

    @property
    def learned_from(self) -> list[str]:
        """Models that learned from labels of what is replayed here: of those, their figures flatter."""
        return [version for version, seq in self.inputs.get("trained_to", {}).items() if seq > self.inputs["from_seq"]]

    @property
    def failed(self) -> list[str]:
        """Strategies that threw, each with where."""
        return [f"{one['strategy']}: {one['failed']}" for one in self.outcome.get("strategies", ()) if one["failed"]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "topics": list(self.topics), "outcome_sha256": self.outcome_sha256}


@dataclass(frozen=True, slots=True)
class _History:
    """What of history is replayed: [`from_seq`, `until_seq`), which occurred from `start` to `end`; what was taken back.

    `waiting` transactions of the archive stand behind one that has not come: they are no part of it.
    """

    source: ArchiveSource
    from_seq: int
    until_seq: int
    start: datetime
    end: datetime
    void: Restatement
    waiting: int


def replay(
    composition: Composition,
    request: ReplayRequest,
    *,
    folder: Path,
    progress: Progress = lambda stage, done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ReplayResult:
    """Replay a part of history in a sandbox. The log, its read models and its reactors see nothing of it.

    Args:
        folder: where replays keep their locks.
        stopped: asked now and then; a replay that is stopped has no outcome.

    Raises:
        ReplayError, SchemesError: it cannot be as it was asked for.
        NotReady: no such model was trained.
        SourceIncomplete: the archive lacks a transaction.
        LogError: Kafka does not answer.
        StoreUnavailable, StoreDisagrees: S3 does not answer, or holds what cannot be read.
    """
    if not 1 <= request.scale <= MOST_SCALE:
        raise ReplayError(f"scale: expected 1 to {MOST_SCALE}, found {request.scale}")
    models = _models(composition, request.models)
    policies = request.policies or (current(composition),)
    try:
        history = _history(composition, request, _asking(progress, stopped))
    except _Stopped:
        return ReplayResult("", {}, is_stopped=True)
    planted = injected(request.schemes.schemes if request.schemes is not None else (), history.start, history.end)
    prices = _prices(composition, request.quote)
    truth, labels_sha256 = _truth(composition, request.scale, planted)
    inputs = _inputs(request, policies, models, history, labels_sha256, prices)
    inputs["trained_to"] = {version: composition.log.trained_to(version) for version in models}
    result = ReplayResult(f"r-{_digest(inputs)[:12]}", inputs)
    start_us, end_us = micros(history.start), micros(history.end)
    versions: list[str | None] = [*models] or [None]
    variants = [
        Variant(
            f"{policy.title}, {version or 'no model'}", policy, version, truth, prices, request.react // timedelta(microseconds=1),
            start_us, end_us,
        )
        for policy in policies for version in versions
    ]  # fmt: skip
    traders = [PaperTrader(file, prices, start_us, end_us) for file in request.strategies]
    state = FeatureState()
    if not _warm_up(history, request.scale, state if models else None, variants, progress, stopped):
        result.is_stopped = True
        return result
    admin = composition.clients.admin
    with Sandbox(admin, folder, result.run_id, len(variants)) as sandbox:
        _judge(composition, request, history, planted, sandbox, state, models, variants, traders, result, progress, stopped)
        if request.is_kept and not result.is_stopped:
            result.topics = sandbox.keep()
    return result


def _judge(
    composition: Composition, request: ReplayRequest, history: _History, planted: Injection, sandbox: Sandbox, state: FeatureState,
    models: dict[str, PackagedModel], variants: Sequence[Variant], traders: Sequence[PaperTrader], result: ReplayResult,
    progress: Progress, stopped: Callable[[], bool],
) -> None:  # fmt: skip
    clients = composition.clients
    latencies = Latencies()
    kafka = {**clients.kafka, "log_level": 3}  # that the sandbox's topics go at the end is no news
    log = KafkaTransactions(kafka, f"tidemark-{sandbox.transactions}", f"tidemark-{sandbox.transactions}", (), clients.admin)
    work = ReplayWork(sandbox, clients.catalog, log, state, models, variants, traders, latencies.add)
    is_over = threading.Event()
    counted = _Counted()
    stream = with_planted((scaled(table, request.scale) for table in _without_void(history, counted)), planted.table)
    producer = PlainProducer(kafka, linger_ms=0 if request.speed is not None else 5)
    feeder = Feeder(producer, sandbox.transactions, ColumnEncoder(clients.catalog), stream, request.speed, lambda: work.done, is_over)
    total = (history.until_seq - history.from_seq) * request.scale + planted.table.num_rows

    def flushed(_: object) -> None:
        progress("replaying", work.done, total)
        if stopped():
            result.is_stopped = True
            is_over.set()

    source = KafkaSource(clients.kafka, work.topics, "tidemark-replay", "tidemark-replay", is_alone=True, drain_s=0.001)
    runner = Runner(source, work, FlushPolicy(FLUSH if models else PLAIN_FLUSH, 0.0, gathers=True), flushed)
    watcher = threading.Thread(target=_watch, args=(stopped, is_over, result), daemon=True)
    feeder.start()
    watcher.start()
    started = time.monotonic()
    try:
        runner.run(is_over)
    finally:
        is_over.set()
        feeder.join()
        log.close()
    if feeder.error is not None:
        raise feeder.error
    if result.is_stopped:
        return
    seconds = time.monotonic() - started
    result.outcome = {
        "transactions": work.done, "injected": planted.table.num_rows, "schemes": planted.schemes, "taken_back": counted.left_out,
        "start": history.start.isoformat(), "end": history.end.isoformat(),
        "variants": [variant.as_json() for variant in variants], "strategies": [trader.outcome().as_json() for trader in traders],
    }  # fmt: skip
    result.measured = {
        "seconds": round(seconds, 2), "transactions_per_s": round(work.done / seconds, 1) if seconds else None,
        "waiting": history.waiting,
        "offered_per_s": round(work.done / feeder.seconds, 1) if feeder.seconds else None,
        "latency": latencies.as_json() if request.speed is not None else None,
        "speed": round((history.end - history.start).total_seconds() / seconds, 1) if seconds else None,
    }  # fmt: skip


def _watch(stopped: Callable[[], bool], is_over: threading.Event, result: ReplayResult) -> None:
    """A slow replay has long times between two flushes: whoever wants it to end need not wait for the next."""
    while not is_over.wait(0.2):
        if stopped():
            result.is_stopped = True
            is_over.set()


class _Stopped(Exception):
    """Whoever asked for the replay does not want it any more."""


def _asking(progress: Progress, stopped: Callable[[], bool]) -> Progress:
    """The same progress, which ends the work where it is not wanted any more."""

    def told(stage: str, done: int, total: int) -> None:
        if stopped():
            raise _Stopped
        progress(stage, done, total)

    return told


def _models(composition: Composition, names: Sequence[str]) -> dict[str, PackagedModel]:
    found: dict[str, PackagedModel] = {}
    for name in names:
        if name == NO_SCORES:
            if len(names) > 1:
                raise ReplayError(f"model: expected {NO_SCORES} alone, found {', '.join(names)}")
            return {}
        version = name
        if name == DEPLOYED:
            deployed = composition.log.deployed()
            if deployed is None:
                raise NotReady(f"{NO_MODEL}; or name a trained one with --model, or replay without scores by --model {NO_SCORES}")
            version = deployed.model_version
        found[version] = PackagedModel(*composition.trained_package(version))
    return found


def _history(composition: Composition, request: ReplayRequest, progress: Progress) -> _History:
    source = transaction_source(composition, "s3")
    assert isinstance(source, ArchiveSource)
    partitions = len(composition.partitions.of(["transaction-events"]))
    survey = source.survey((), partitions, lambda done: progress("looking at what the archive has", done, 0))
    if not survey.end:
        raise ReplayError("the archive holds no transaction yet: its worker archives within a minute (`tidemark status`)")
    if isinstance(request.until, int) and request.until > survey.end:
        raise ReplayError(
            f"expected an end up to seq {survey.end}, found {request.until}: the archive has no more without a gap."
            " `tidemark status` says whether its worker is behind, `tidemark verify archive` whether an object is missing"
        )
    seqs, first_us, last_us = _bounds(source, request, survey.end, progress)
    from_seq, until_seq = seqs
    if not from_seq < until_seq:
        raise ReplayError(f"expected a range with transactions in it, found none: the archive has seq 0 to {survey.end - 1}")
    voids: dict[str, int] = {}
    for tx_id, seq in composition.log.voids():
        voids[tx_id] = max(seq, voids.get(tx_id, -1))
    start, end = (EPOCH + timedelta(microseconds=at) for at in (first_us, last_us + 1))
    return _History(source, from_seq, until_seq, start, end, Restatement(until_seq, voids), survey.waiting)


def _bounds(source: ArchiveSource, request: ReplayRequest, end: int, progress: Progress) -> tuple[tuple[int, int], int, int]:
    """The range's seqs, and the first and last time in it, microseconds since 1970."""
    since, until = request.since, request.until
    from_seq = since if isinstance(since, int) else None
    until_seq = end if until is None else min(until, end) if isinstance(until, int) else None
    since_us = micros(since) if isinstance(since, datetime) else 0
    until_us = micros(until) if isinstance(until, datetime) else 0
    first_us, last_us, at = None, 0, 0
    for table in source.read(0, end, ("occurred_at",)):
        times = table["occurred_at"].cast(pa.int64()).to_numpy()
        seqs = table["_seq"].to_numpy()
        if from_seq is None and (later := np.flatnonzero(times >= since_us)).size:
            from_seq = int(seqs[later[0]])
        if until_seq is None and from_seq is not None and (beyond := np.flatnonzero((times >= until_us) & (seqs >= from_seq))).size:
            until_seq = int(seqs[beyond[0]])
        mine = times[(seqs >= (end if from_seq is None else from_seq)) & (seqs < (end if until_seq is None else until_seq))]
        if len(mine):
            first_us = int(mine.min()) if first_us is None else min(first_us, int(mine.min()))
            last_us = max(last_us, int(mine.max()))
        at += len(seqs)
        progress("looking for the range", at, end)
    return (end if from_seq is None else from_seq, end if until_seq is None else until_seq), first_us or 0, last_us


class _Counted:
    """How many transactions of the range were left out."""

    def __init__(self) -> None:
        self.left_out = 0


def _without_void(history: _History, counted: _Counted) -> Iterator[pa.Table]:
    """The transactions of the range, whole, without what was taken back."""
    for table in history.source.read(history.from_seq, history.until_seq, ()):
        table = table.filter(pc.less(table["_seq"], history.until_seq))
        if not table.num_rows:
            return
        kept = history.void.kept(table, table["_seq"].to_numpy())
        counted.left_out += table.num_rows - kept.num_rows
        yield kept


def _warm_up(
    history: _History, scale: int, state: FeatureState | None, variants: Sequence[Variant], progress: Progress, stopped: Callable[[], bool]
) -> bool:
    """Let features and rules know of what came before the range; false where it was stopped."""
    has_rules = any(variant.has_rules for variant in variants)
    if not history.from_seq or (state is None and not has_rules):
        return True
    for table in history.source.read(0, history.from_seq, _WARM_FIELDS):
        table = table.filter(pc.less(table["_seq"], history.from_seq))
        if not table.num_rows:
            break
        kept = scaled(history.void.kept(table, table["_seq"].to_numpy()), scale)
        if state is not None:
            state.observe(TransactionColumns.from_arrow(kept), emit="none", neighbourhoods=False)
        if has_rules:
            rows = list(rule_rows(kept))
            for variant in variants:
                variant.observe(rows)
        progress("reading the history before it", int(table["_seq"][-1].as_py()) + 1, history.from_seq)
        if stopped():
            return False
    return True


def _prices(composition: Composition, quote: str) -> PriceBook:
    return PriceBook(
        quote,
        (
            Priced(micros(record["priced_at"]), record["asset"], record["price"])
            for name, record, *_ in composition.log.events(PRICE_EVENTS)
            if name == "AssetPriced" and record["quote_asset"] == quote
        ),
    )


def _truth(composition: Composition, scale: int, planted: Injection) -> tuple[Truth, str]:
    """All that the log's labels say until now, for every copy of the population; members of planted schemes are illicit."""
    wallets, transactions = (
        {name: label.is_positive for name, label in labels.items()} for labels in labels_of_log(composition, datetime.now(UTC))
    )
    digest = _digest([sorted(wallets.items()), sorted(transactions.items())])
    copies = range(1, scale + 1)
    everyone = {copy_name(name, copy): label for name, label in wallets.items() for copy in copies}
    everyone |= dict.fromkeys(planted.members, True)
    return Truth(everyone, {copy_name(name, copy): label for name, label in transactions.items() for copy in copies}), digest


def _inputs(
    request: ReplayRequest, policies: Sequence[Policy], models: dict[str, PackagedModel], history: _History, labels: str, prices: PriceBook
) -> dict[str, Any]:
    """All that the outcome depends on. The speed is not among it."""
    return {
        "format": FORMAT, "from_seq": history.from_seq, "until_seq": history.until_seq, "generation": history.source.generation,
        "scale": request.scale, "schemes_sha256": request.schemes.sha256 if request.schemes is not None else None,
        "policies": [{"policy": policy.title, "sha256": _digest(policy.to_json())} for policy in policies], "models": list(models),
        "strategies": [{"strategy": one.name, "sha256": one.sha256} for one in request.strategies],
        "react_s": request.react.total_seconds(), "quote": request.quote, "labels_sha256": labels,
        "prices": len(prices), "prices_sha256": prices.sha256(),
        "void": len(history.void.void_up_to), "void_sha256": _digest(sorted(history.void.void_up_to.items())),
    }  # fmt: skip


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
