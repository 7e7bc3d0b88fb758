"""The composition root: the one place where workers are put together from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.clients import Clients
from infra.command_handler import CommandHandler
from infra.kafka import DRAIN_S, KafkaSource, KafkaTransactions, PlainProducer
from infra.log_view import LogView
from infra.seen_transactions import SeenTransactions
from infra.settings import Settings
from projections.archive import RawArchive
from projections.runner import FlushPolicy, Source
from projections.verify import Verifier
from projections.work import LedgerWork, RawWork, SinkWork, TransactionWork, Transformer, Work
from schema_registry.contracts import TRANSACTION_EVENTS

AUTHORISED = frozenset({"card", "customer", "bank"})
"""Networks where a frozen source may not send: its institution asks before value moves. On any other it has moved already."""

HANDLER_BATCH = 60_000  # commands a Kafka transaction at most: its fixed cost, 15 to 70 ms by the broker's load, is then under a tenth
HANDLER_DRAIN_S = 0.001  # a transaction under way gathers the next commands by itself: to wait for more only makes each one later
NO_MODEL = "no model is deployed yet: run `tidemark train`, then `tidemark deploy`"


class NotReady(RuntimeError):
    """A worker cannot start yet; the message says what must be done first."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker ready to run."""

    source: Source
    work: Work
    policy: FlushPolicy


class Composition:
    """Builds parts on demand; connects only to what the part asked for needs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clients = Clients(settings)
        self.log = LogView(self.clients)

    @cached_property
    def producer(self) -> PlainProducer:
        """For commands and for quarantine."""
        return PlainProducer(self.clients.kafka)

    @cached_property
    def generations(self) -> dict[str, int]:
        """The live generation by projection, 1 where none was swapped."""
        return self.log.generations()

    def archive(self, generation: int | None = None) -> RawArchive:
        """The raw archive, by default the live generation."""
        return RawArchive(self.clients.s3, self.settings.s3.bucket, generation or self.generations.get("archive", 1))

    def warehouse(self, generation: int | None = None) -> Any:
        """The warehouse projection, by default the live generation."""
        from projections.warehouse import WarehouseProjection

        return WarehouseProjection(self.warehouse_dsn, generation or self.generations.get("warehouse", 1))

    @property
    def warehouse_dsn(self) -> str:
        """The warehouse's address, password included."""
        dsn = self.settings.warehouse.dsn
        return dsn.get_secret_value() if dsn is not None else ""

    def graph(self) -> Any:
        """The wallet graph of the server in use: on Community the server serves one generation."""
        from projections.wallet_graph import WalletGraphProjection

        return WalletGraphProjection(self.clients.neo4j, self.settings.neo4j.database)

    def verifier(self) -> Verifier:
        """Proves stores equal to this log."""
        quarantined = frozenset(self.log.quarantine())
        return Verifier(lambda topics, start, end: self.log.read(topics, start, end), self.log.ends, quarantined, self.clients.catalog)

    def sink(self, name: str, projection: Any, group: str | None = None) -> Worker:
        """A worker around a projection; another group reads independently (a rebuild beside the live one)."""
        work: Work
        if name == "archive":
            work, policy = RawWork(projection), FlushPolicy(100_000, 2.0)
        else:
            work = SinkWork(projection, self.clients.catalog, self.producer)
            policy = FlushPolicy(50_000, 0.5) if name == "warehouse" else FlushPolicy(20_000, 0.5)
        group = group or f"tidemark-{name}"
        return Worker(KafkaSource(self.clients.kafka, projection.topics, group, f"{group}-1"), work, policy)

    def worker(self, name: str) -> Worker:
        """The worker of a name in `WORKERS`.

        Raises:
            NotReady: something must happen before it can start.
            KeyError: no such worker.
        """
        return WORKERS[name](self)

    def _command_handler(self) -> Worker:
        seen = SeenTransactions(self.settings.stack_dir / "command-handler", self.clients.admin.log_id())
        handler = CommandHandler(self.clients.catalog, seen, AUTHORISED, lambda: self.clients.admin.ends([TRANSACTION_EVENTS]))
        # Fence the older handler first: what it committed until then is what the state is restored from.
        worker = self._transformer(handler, FlushPolicy(HANDLER_BATCH, 0.0, gathers=True))
        handler.restore(self.log.read)
        return worker

    def _archive(self) -> Worker:
        archive = self.archive()
        archive.prepare(self.clients.catalog.schemas())
        return self.sink("archive", archive)

    def _warehouse(self) -> Worker:
        from projections.warehouse import WarehouseGenerations

        projection = self.warehouse()
        projection.load_position()
        generations = WarehouseGenerations(self.warehouse_dsn)
        if generations.live() != projection.generation:
            generations.publish(projection.generation)
        return self.sink("warehouse", projection)

    def _graph(self) -> Worker:
        graph = self.graph()
        graph.prepare()
        return self.sink("graph", graph)

    def _scorer(self) -> Worker:
        import torch

        from infra.endpoint import SageMakerEndpoint
        from ml.packaging import load_encoder
        from ml.scorer import Scorer

        torch.set_num_threads(1)  # micro-batches are small: a second thread waits for the first, ten times slower on a busy machine
        deployed = self.log.deployed()
        if deployed is None:
            raise NotReady(NO_MODEL)
        encoder, card = load_encoder(self.package(deployed.package_uri), deployed.package_sha256)
        scorer = Scorer(
            self.clients.catalog, SageMakerEndpoint(self.settings), encoder, deployed.model_version, self.log.first_scored_seq(),
            bool(card["scores_transactions"]),
        )  # fmt: skip
        log = self._transactions(scorer)
        position = scorer.restore(self.log.read, log.load_position())
        if not log.load_position() and position:
            log.commit((), (), position)  # so that the runner begins where the model does
        return self._ordered(scorer, log, FlushPolicy(512, 0.0, gathers=True))

    def _alerts(self) -> Worker:
        from ml.alerting import Alerting
        from ml.policy import AlertPolicy

        if self.log.deployed() is None:
            raise NotReady(NO_MODEL)
        text = self.log.policy()
        policy = AlertPolicy.from_json(text) if text is not None else AlertPolicy()
        alerting = Alerting(self.clients.catalog, policy, self.log.first_scored_seq())
        log = self._transactions(alerting)
        alerting.restore(self.log.read, log.load_position())
        return self._ordered(alerting, log, FlushPolicy(2_000, 0.0, gathers=True))

    def _notifier(self) -> Worker:
        from infra.ledger import SqliteLedger
        from infra.notifier import Notifier

        notifier = Notifier(self.clients.aws("sns"), self.clients.aws("sqs"))
        notifier.prepare()
        ledger = SqliteLedger(self.settings.stack_dir / "notifier" / "ledger.sqlite")
        source = KafkaSource(self.clients.kafka, notifier.topics, "tidemark-notifier", "tidemark-notifier-1", is_alone=True)
        return Worker(source, LedgerWork(notifier, ledger, self.clients.catalog, self.producer), FlushPolicy(1_000, 0.2))

    def package(self, uri: str) -> bytes:
        """A model package by its `s3://bucket/key`.

        Raises:
            NotReady: it is not there.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        try:
            body: bytes = self.clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.clients.s3.exceptions.NoSuchKey:
            raise NotReady(f"the model package {uri} is gone; run `tidemark train`") from None
        return body

    def _transactions(self, transformer: Transformer) -> KafkaTransactions:
        name = f"tidemark-{transformer.name}"
        return KafkaTransactions(self.clients.kafka, name, name, transformer.topics, self.clients.admin)

    def _transformer(self, transformer: Transformer, policy: FlushPolicy) -> Worker:
        return self._ordered(transformer, self._transactions(transformer), policy, HANDLER_DRAIN_S)

    def _ordered(self, transformer: Transformer, log: KafkaTransactions, policy: FlushPolicy, drain_s: float = DRAIN_S) -> Worker:
        group = f"tidemark-{transformer.name}"
        source = KafkaSource(self.clients.kafka, transformer.topics, group, f"{group}-1", is_alone=True, drain_s=drain_s)
        return Worker(source, TransactionWork(transformer, log, self.clients.catalog), policy)


WORKERS: dict[str, Callable[[Composition], Worker]] = {
    "command-handler": Composition._command_handler,
    "archive": Composition._archive,
    "warehouse": Composition._warehouse,
    "graph": Composition._graph,
    "scorer": Composition._scorer,
    "alerts": Composition._alerts,
    "notifier": Composition._notifier,
}
