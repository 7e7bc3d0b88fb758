"""What runs and how far each worker is: positions and heads are read from the stores and the log, never from a worker's own word.

A worker is caught up when its stored position equals a head of the log that was read after it. Its lag in seconds is the age of the
oldest record that its store does not include yet: this machine's clock now, less the time at which Kafka appended that record.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import TidemarkError
from domain.log import Position, TopicPartition
from infra.composition import WORKERS, Composition
from infra.instances import worker_of
from infra.lambdas.card_alerts import CARD_ALERTS
from infra.metrics import RATE_WINDOW_S, STANDBY, read_statuses
from infra.read_models import BUILT_IN, added
from infra.settings import Settings
from infra.stack import Stack
from infra.stack.part import SERVERS
from infra.stack.state import PartStatus
from projections.archive import ARCHIVED_TOPICS
from schema_registry.contracts import CASE_EVENTS, COMMANDS, PARTITIONS, QUARANTINE_EVENTS, SCORE_EVENTS, TRANSACTION_EVENTS

COMMAND_HANDLER = "command-handler"
GROUPS = {
    COMMAND_HANDLER: (COMMANDS,), "scorer": (TRANSACTION_EVENTS,), "alerts": (SCORE_EVENTS,), "rules": (TRANSACTION_EVENTS,),
    CARD_ALERTS: (SCORE_EVENTS,),
}  # fmt: skip
"""Workers whose position is a group's stored offsets in Kafka, with what they read."""
EVIDENCE_S = 0.5  # less between two looks says little about a pace
YOURS = "yours"
ENDPOINT = "endpoint"
"""The model's endpoint is kept by the stack like a worker, but serves like a server."""


Reader = Callable[[Composition, int], tuple[tuple[str, ...], Position]]
"""Given the composition and the live generation, what a worker reads and its position."""


@dataclass(frozen=True, slots=True)
class ServerReport:
    """One server. `state` is `yours` where the settings give its address: it is not started here."""

    name: str
    state: str
    is_ready: bool
    pid: int | None
    restarts: int
    address: str
    detail: str | None

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "name": self.name, "state": self.state, "is_ready": self.is_ready, "pid": self.pid, "restarts": self.restarts,
            "address": self.address, "detail": self.detail,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """One partition of what a worker reads. `lag` counts offsets, `lag_s` is the age of the oldest record that is not included yet."""

    topic: str
    partition: int
    position: int
    head: int
    lag_s: float | None
    quarantined: int

    @property
    def lag(self) -> int:
        """Offsets between the position and the head, Kafka's own markers included: an upper bound of records."""
        return max(0, self.head - self.position)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "topic": self.topic, "partition": self.partition, "position": self.position, "head": self.head, "lag": self.lag,
            "lag_s": _rounded(self.lag_s), "is_caught_up": not self.lag, "quarantined": self.quarantined,
        }  # fmt: skip


@dataclass(slots=True)
class WorkerReport:
    """One worker. `lag` counts offsets between its position and the head, Kafka's own markers included: an upper bound of records.

    `position`, `head`, `lag` and `is_caught_up` are none where they cannot be known; `problem` then says why. `lag_s` is the largest of
    its partitions'. `eta_s` is when it has caught up at the pace of the last seconds, none where it does not get nearer.
    """

    name: str
    state: str
    pid: int | None = None
    restarts: int = 0
    position: Position | None = None
    head: Position | None = None
    lag: int | None = None
    is_caught_up: bool | None = None
    records_per_s: float = 0.0
    quarantined: int = 0
    last_error: str | None = None
    problem: str | None = None
    lag_s: float | None = None
    eta_s: float | None = None
    generation: int | None = None
    partitions: list[PartitionReport] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether it works, or has done all it had to."""
        return self.state in ("ready", "finished", STANDBY)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "name": self.name, "state": self.state, "pid": self.pid, "restarts": self.restarts,
            "position": _plain(self.position), "head": _plain(self.head), "lag": self.lag, "is_caught_up": self.is_caught_up,
            "records_per_s": self.records_per_s, "quarantined": self.quarantined, "last_error": self.last_error, "problem": self.problem,
            "lag_s": _rounded(self.lag_s), "eta_s": _rounded(self.eta_s), "generation": self.generation,
            "partitions": [partition.as_json() for partition in self.partitions],
        }  # fmt: skip


@dataclass(slots=True)
class StackReport:
    """Servers and workers of one stack."""

    stack: str
    folder: str
    is_up: bool
    servers: list[ServerReport] = field(default_factory=list)
    workers: list[WorkerReport] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether every server answers."""
        return all(server.is_ready for server in self.servers)

    @property
    def is_caught_up(self) -> bool:
        """Whether every worker runs and has a position equal to the head; one that cannot be asked is not called caught up.

        Where a server is down, or no worker has ever run, nothing is caught up.
        """
        is_known = self.is_ready and bool(self.workers)
        return is_known and all(w.is_running and w.is_caught_up is not False and w.problem is None for w in self.workers)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "stack": self.stack, "folder": self.folder, "is_up": self.is_up, "is_ready": self.is_ready, "is_caught_up": self.is_caught_up,
            "servers": [server.as_json() for server in self.servers], "workers": [worker.as_json() for worker in self.workers],
        }  # fmt: skip


class StatusReader:
    """Looks at every server and worker of a stack, again and again: from the second look on, rates are those of the stored positions."""

    def __init__(self, stack: Stack, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._stack, self._monotonic = stack, monotonic
        self._composition: Composition | None = None
        self._looks: deque[tuple[float, dict[str, tuple[int, int]]]] = deque()
        self._quarantine_end: Position | None = None
        self._quarantined: Counter[tuple[str, TopicPartition]] = Counter()

    def report(self, settings: Settings) -> StackReport:
        """How things stand now.

        Args:
            settings: with the addresses of the local servers filled in.

        Raises:
            LogError: a Kafka of the user's own does not answer.
        """
        stack = self._stack
        if self._composition is None or self._composition.settings != settings:
            self._composition, self._quarantine_end = Composition(settings), None
        is_up = stack.is_up()
        statuses = stack.status() if is_up else {}
        report = StackReport(settings.stack, str(stack.state.folder), is_up, servers(stack, settings, statuses))
        told = read_statuses(settings.stack_dir / "workers")
        ours = (*WORKERS, *added())
        names = [name for name in ours if name in statuses or name in told]
        names += [name for name, status in statuses.items() if status.is_worker and name not in (*ours, ENDPOINT)]
        # Further processes of a worker stand behind its first one, which shows how far they are together.
        names.sort(key=lambda name: (ours.index(worker_of(name)[0]) if worker_of(name)[0] in ours else len(ours), worker_of(name)[1]))
        report.workers = [_worker(name, statuses.get(name), told.get(name, {})) for name in names]
        ready = {server.name for server in report.servers if server.is_ready}
        _positions(report.workers, self._composition, ready, self._entries)
        self._paces(report.workers)
        return report

    def _entries(self, composition: Composition) -> Counter[tuple[str, TopicPartition]]:
        """Open entries by who set them aside and partition; the topic is read again only once it has grown."""
        end = composition.clients.admin.ends([QUARANTINE_EVENTS])
        if end != self._quarantine_end:
            found = composition.log.quarantine()
            self._quarantined = Counter((projection, (topic, partition)) for projection, topic, partition, _ in found)
            self._quarantine_end = end
        return self._quarantined

    def _paces(self, workers: list[WorkerReport]) -> None:
        """Rates and time left: from the positions of earlier looks, else from what the worker says of itself."""
        now = self._monotonic()
        found = {w.name: (sum(part.position for part in w.partitions), w.lag) for w in workers if w.lag is not None}
        self._looks.append((now, found))
        while len(self._looks) > 2 and now - self._looks[1][0] > RATE_WINDOW_S:
            self._looks.popleft()
        for worker in workers:
            if worker.lag is None:
                continue
            at, earlier = next(((at, look[worker.name]) for at, look in self._looks if worker.name in look), (now, (0, 0)))
            nearer_per_s = worker.records_per_s
            if (seconds := now - at) >= EVIDENCE_S:
                reached, lag = found[worker.name]
                worker.records_per_s = round(max(0, reached - earlier[0]) / seconds, 1)
                nearer_per_s = (earlier[1] - lag) / seconds
            if worker.lag and nearer_per_s > 0:
                worker.eta_s = worker.lag / nearer_per_s


def servers(stack: Stack, settings: Settings, statuses: dict[str, PartStatus]) -> list[ServerReport]:
    """Every server: those of the stack with what they do, the user's own with their address."""
    local = set(stack.local_parts())
    addresses = {
        "kafka": settings.kafka.bootstrap, "registry": settings.registry.url, "s3": settings.s3.endpoint_url,
        "postgres": _without_password(settings), "neo4j": settings.neo4j.uri, "aws": settings.aws.endpoint_url,
        "guides": settings.neo4j.guides_url,
    }  # fmt: skip
    found = []
    for name in SERVERS:
        address = addresses.get(name) or ""
        if name not in local:
            found.append(ServerReport(name, YOURS, True, None, 0, address, None))
            continue
        status = statuses.get(name)
        if status is None:
            found.append(ServerReport(name, "stopped", False, None, 0, address, None))
        else:
            found.append(ServerReport(name, status.state, status.is_ready, status.pid, status.restarts, address, status.detail))
    endpoint = statuses.get(ENDPOINT)
    if endpoint is not None:
        address = settings.endpoint.url or ""
        found.append(ServerReport(ENDPOINT, endpoint.state, endpoint.is_ready, endpoint.pid, endpoint.restarts, address, endpoint.detail))
    return found


def _worker(name: str, status: PartStatus | None, told: dict[str, Any]) -> WorkerReport:
    """A worker by what the supervisor knows and what its own file says; without a supervisor, by the file."""
    is_recent = time.time() - float(told.get("written_at", 0)) < RATE_WINDOW_S
    error = told.get("last_error")
    if status is None:
        return WorkerReport(name, "stopped" if told.get("state") in ("stopped", "failed") else "unknown", last_error=error)
    if error is None and not status.is_ready:
        error = status.detail or status.last_exit
    rate = float(told.get("records_per_s", 0.0)) if is_recent else 0.0
    is_waiting = status.is_ready and (told.get("state"), told.get("pid")) == (STANDBY, status.pid)
    return WorkerReport(name, STANDBY if is_waiting else status.state, status.pid, status.restarts, records_per_s=rate, last_error=error)


def _positions(
    workers: list[WorkerReport],
    composition: Composition,
    ready: set[str],
    entries: Callable[[Composition], Counter[tuple[str, TopicPartition]]],
) -> None:
    """Fill in positions first and the head after them, so that equal means caught up."""
    if not {"kafka", "registry"} <= ready:
        for worker in workers:
            worker.problem = "the log cannot be asked: " + " and ".join(sorted({"kafka", "registry"} - ready)) + " down"
        return
    missing = composition.clients.admin.missing(PARTITIONS)
    if missing:
        for worker in workers:
            worker.problem = f"the log has no topic {missing[0]}: `tidemark up` makes it"
        return
    generations = composition.log.generations()
    topics: dict[str, tuple[str, ...]] = {}
    models = {**BUILT_IN, **added()}
    for worker in workers:
        model = models.get(worker.name)
        if model is not None:
            worker.generation = generations.get(worker.name, 1)
            if model.needs[0] not in ready:
                worker.problem = f"its position cannot be read: {model.needs[0]} is down"
                continue
        if worker.name not in READERS and worker.name not in models:
            continue
        try:
            topics[worker.name], worker.position = read_position(composition, worker.name, generations)
        except (TidemarkError, BotoCoreError, ClientError) as error:
            worker.problem = f"its position cannot be read: {error}"
    wanted = sorted({topic for found in topics.values() for topic in found})
    head = composition.log.ends(wanted) if wanted else {}
    quarantined = entries(composition)
    for worker in workers:
        projection = models[worker.name].set_aside_as if worker.name in models else worker.name
        worker.quarantined = sum(n for (name, _), n in quarantined.items() if name == projection)
        if worker.position is not None:
            worker.head = {tp: end for tp, end in head.items() if tp[0] in topics[worker.name]}
            _fill(worker, composition, {tp: n for (name, tp), n in quarantined.items() if name == projection})


def _fill(worker: WorkerReport, composition: Composition, quarantined: Mapping[TopicPartition, int]) -> None:
    """Lag of each partition and of the whole."""
    position, head = worker.position or {}, worker.head or {}
    behind = {tp: end for tp, end in head.items() if position.get(tp, 0) < end}
    appended = composition.log.appended_at({tp: position.get(tp, 0) for tp in behind}, behind)
    now = time.time()
    ages = {tp: max(0.0, now - at / 1000) for tp, at in appended.items()}
    worker.partitions = [
        PartitionReport(*tp, position.get(tp, 0), end, ages.get(tp) if tp in behind else 0.0, quarantined.get(tp, 0))
        for tp, end in sorted(head.items())
    ]
    worker.lag = sum(partition.lag for partition in worker.partitions)
    worker.is_caught_up = worker.lag == 0
    known = [partition.lag_s for partition in worker.partitions if partition.lag_s is not None]
    worker.lag_s = max(known, default=None)


def read_position(composition: Composition, name: str, generations: Mapping[str, int]) -> tuple[tuple[str, ...], Position]:
    """What a worker reads, and its position, from where that is stored.

    Args:
        generations: the live generation by projection, as the log has it now.

    Raises:
        InvalidValue: no such worker.
        StoreUnavailable: its store does not answer.
        LogError: Kafka does not answer.
    """
    reader = READERS.get(name) or _tables(name)
    return reader(composition, generations.get(name, 1))


def _group(name: str) -> Reader:
    topics = GROUPS[name]
    return lambda composition, generation: (topics, composition.clients.admin.committed(f"tidemark-{name}", topics))


def _archive(composition: Composition, generation: int) -> tuple[tuple[str, ...], Position]:
    return ARCHIVED_TOPICS, composition.archive(generation).load_position()


def _curated(composition: Composition, generation: int) -> tuple[tuple[str, ...], Position]:
    with closing(composition.curated(generation)) as curated:
        # Asking a table that is not there would make it.
        return curated.topics, curated.load_position() if curated.exists() else {}


def _tables(name: str) -> Reader:
    """A read model in Postgres: the warehouse, or an installed projection."""

    def read(composition: Composition, generation: int) -> tuple[tuple[str, ...], Position]:
        with closing(composition.store(name, generation)) as store:
            # Asking a generation that is not there would make it.
            exists = generation in composition.schemas(name).generations()
            return store.topics, store.load_position() if exists else {}

    return read


def _graph(composition: Composition, generation: int) -> tuple[tuple[str, ...], Position]:
    graph = composition.graph()
    return graph.topics, graph.load_position()


def _notifier(composition: Composition, generation: int) -> tuple[tuple[str, ...], Position]:
    is_there = composition.ledger_file("notifier").exists()
    return (CASE_EVENTS,), composition.ledger("notifier").load_position() if is_there else {}


READERS: dict[str, Reader] = {
    **{name: _group(name) for name in GROUPS},
    "archive": _archive,
    "curated": _curated,
    "warehouse": _tables("warehouse"),
    "graph": _graph,
    "notifier": _notifier,
}
"""What a worker reads and how far it is, by worker, from where its position is stored; of installed projections, their tables."""


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _without_password(settings: Settings) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if settings.warehouse.dsn is None:
        return ""
    try:
        return make_url(settings.warehouse.dsn.get_secret_value()).render_as_string(hide_password=True)
    except ArgumentError:
        return "set"


def _plain(position: Position | None) -> dict[str, int] | None:
    return None if position is None else {f"{topic}/{partition}": offset for (topic, partition), offset in sorted(position.items())}
