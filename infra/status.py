"""What runs and how far each worker is: read from the servers and the stores themselves, never from a worker's own word.

A worker is caught up when its stored position equals a head of the log that was read after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from domain.errors import TidemarkError
from domain.log import Position
from infra.composition import WORKERS, Composition
from infra.metrics import RATE_WINDOW_S, read_statuses
from infra.settings import Settings
from infra.stack import Stack
from infra.stack.part import SERVERS
from infra.stack.state import PartStatus
from projections.archive import ARCHIVED_TOPICS
from schema_registry.contracts import CASE_EVENTS, COMMANDS, PARTITIONS, SCORE_EVENTS, TRANSACTION_EVENTS

GROUPS = {"command-handler": (COMMANDS,), "scorer": (TRANSACTION_EVENTS,), "alerts": (SCORE_EVENTS,)}
"""Workers whose position is a group's stored offsets in Kafka, with what they read."""
NEEDS = {"archive": "s3", "curated": "s3", "warehouse": "postgres", "graph": "neo4j"}
"""The server that holds the position of each other worker."""
YOURS = "yours"
ENDPOINT = "endpoint"
"""The model's endpoint is kept by the stack like a worker, but serves like a server."""


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


@dataclass(slots=True)
class WorkerReport:
    """One worker. `lag` counts offsets between its position and the head, Kafka's own markers included: an upper bound of records.

    `position`, `head`, `lag` and `is_caught_up` are none where they cannot be known; `problem` then says why.
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

    @property
    def is_running(self) -> bool:
        """Whether it works, or has done all it had to."""
        return self.state in ("ready", "finished")

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "name": self.name, "state": self.state, "pid": self.pid, "restarts": self.restarts,
            "position": _plain(self.position), "head": _plain(self.head), "lag": self.lag, "is_caught_up": self.is_caught_up,
            "records_per_s": self.records_per_s, "quarantined": self.quarantined, "last_error": self.last_error, "problem": self.problem,
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
        """Whether every worker runs and has a position equal to the head."""
        return all(worker.is_running and worker.is_caught_up is not False for worker in self.workers)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "stack": self.stack, "folder": self.folder, "is_up": self.is_up, "is_ready": self.is_ready, "is_caught_up": self.is_caught_up,
            "servers": [server.as_json() for server in self.servers], "workers": [worker.as_json() for worker in self.workers],
        }  # fmt: skip


def stack_report(stack: Stack, settings: Settings) -> StackReport:
    """Look at every server and worker of a stack.

    Args:
        settings: with the addresses of the local servers filled in.
    """
    is_up = stack.is_up()
    statuses = stack.status() if is_up else {}
    report = StackReport(settings.stack, str(stack.state.folder), is_up, servers(stack, settings, statuses))
    told = read_statuses(settings.stack_dir / "workers")
    names = [name for name in WORKERS if name in statuses or name in told]
    names += [name for name, status in statuses.items() if status.is_worker and name not in (*WORKERS, ENDPOINT)]
    report.workers = [_worker(name, statuses.get(name), told.get(name, {})) for name in names]
    ready = {server.name for server in report.servers if server.is_ready}
    _positions(report.workers, Composition(settings), ready)
    return report


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
    return WorkerReport(name, status.state, status.pid, status.restarts, records_per_s=rate, last_error=error)


def _positions(workers: list[WorkerReport], composition: Composition, ready: set[str]) -> None:
    """Fill in positions first and the head after them, so that equal means caught up."""
    if not {"kafka", "registry"} <= ready:
        for worker in workers:
            worker.problem = "the log cannot be asked: " + " and ".join(sorted({"kafka", "registry"} - ready)) + " down"
        return
    if composition.clients.admin.missing(PARTITIONS):
        return  # a new cluster: there is no log yet
    topics: dict[str, tuple[str, ...]] = {}
    for worker in workers:
        needed = NEEDS.get(worker.name)
        if needed is not None and needed not in ready:
            worker.problem = f"its position cannot be read: {needed} is down"
            continue
        reader = READERS.get(worker.name)
        if reader is None:
            continue
        try:
            topics[worker.name], worker.position = reader(composition)
        except (TidemarkError, BotoCoreError, ClientError) as error:
            worker.problem = f"its position cannot be read: {error}"
    wanted = sorted({topic for found in topics.values() for topic in found})
    head = composition.log.ends(wanted) if wanted else {}
    quarantined: dict[str, int] = {}
    for projection, *_ in composition.log.quarantine():
        quarantined[projection] = quarantined.get(projection, 0) + 1
    for worker in workers:
        worker.quarantined = quarantined.get("wallet-graph" if worker.name == "graph" else worker.name, 0)
        position = worker.position
        if position is not None:
            worker.head = {tp: end for tp, end in head.items() if tp[0] in topics[worker.name]}
            worker.lag = sum(max(0, end - position.get(tp, 0)) for tp, end in worker.head.items())
            worker.is_caught_up = worker.lag == 0


def _group(name: str) -> Callable[[Composition], tuple[tuple[str, ...], Position]]:
    topics = GROUPS[name]
    return lambda composition: (topics, composition.clients.admin.committed(f"tidemark-{name}", topics))


def _archive(composition: Composition) -> tuple[tuple[str, ...], Position]:
    return ARCHIVED_TOPICS, composition.archive().load_position()


def _curated(composition: Composition) -> tuple[tuple[str, ...], Position]:
    with closing(composition.curated()) as curated:
        # Asking a table that is not there would make it.
        return curated.topics, curated.load_position() if curated.exists() else {}


def _warehouse(composition: Composition) -> tuple[tuple[str, ...], Position]:
    from projections.warehouse import WarehouseGenerations

    projection = composition.warehouse()
    try:
        # Asking a generation that is not there would make it.
        exists = projection.generation in WarehouseGenerations(composition.warehouse_dsn).generations()
        return projection.topics, projection.load_position() if exists else {}
    finally:
        projection.close()


def _graph(composition: Composition) -> tuple[tuple[str, ...], Position]:
    graph = composition.graph()
    return graph.topics, graph.load_position()


def _notifier(composition: Composition) -> tuple[tuple[str, ...], Position]:
    from infra.ledger import SqliteLedger

    file = composition.settings.stack_dir / "notifier" / "ledger.sqlite"
    return (CASE_EVENTS,), SqliteLedger(file).load_position() if file.exists() else {}


READERS: dict[str, Callable[[Composition], tuple[tuple[str, ...], Position]]] = {
    **{name: _group(name) for name in GROUPS},
    "archive": _archive,
    "curated": _curated,
    "warehouse": _warehouse,
    "graph": _graph,
    "notifier": _notifier,
}
"""What a worker reads and how far it is, by worker, from where its position is stored."""


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
