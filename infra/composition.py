"""The composition root: the one place where workers are put together from settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.errors import InvalidValue
from infra.clients import Clients
from infra.history_source import HistorySource, LiftedSource
from infra.instances import STANDING_BY, process_name
from infra.kafka.client import DRAIN_S
from infra.kafka.producer import PlainProducer
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from infra.leadership import Leadership
from infra.log_view import LogView
from infra.partitions import PartitionBook
from infra.payloads import QuarantineWriter, QuarantiningTransactions, S3Payloads
from infra.policy_watch import PolicyWatch
from infra.read_models import BUILT_IN, read_model
from infra.settings import Settings
from projections.archive_reading import ArchiveReader
from projections.key_order import KeyOrder
from projections.runner import FlushPolicy, Source
from projections.work import LedgerWork, RawWork, SinkWork, TransactionWork, Transformer, Work
from schema_registry.contracts import PARTITIONS, SCORE_EVENTS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

if TYPE_CHECKING:
    from infra.command_handler import CommandHandler
    from infra.ledger import SqliteLedger
    from infra.notifier import Notifier
    from infra.seen_transactions import SeenTransactions
    from projections.verify import Verifier
    from projections.warehouse.redshift import RedshiftDatabase

AUTHORISED = frozenset({"card", "customer", "bank"})
"""Networks where a frozen source may not send: its institution asks before value moves. On any other it has moved already."""

HANDLER_BATCH = 60_000  # commands a Kafka transaction at most: its fixed cost, 15 to 70 ms by the broker's load, is then under a tenth
HANDLER_DRAIN_S = 0.001  # a transaction under way gathers the next commands by itself: to wait for more only makes each one later
SCORER_DRAIN_S = 0.001  # a poll that gathers longer is paid by every score; behind a backlog all that is there is taken along anyway
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
    """Builds parts on demand; connects only to what the part asked for needs.

    Args:
        instance: which of several processes of one worker this is, from 1.
    """

    def __init__(self, settings: Settings, instance: int = 1) -> None:
        self.settings, self.instance = settings, instance
        self.clients = Clients(settings)
        self.log = LogView(self.clients)

    def close(self) -> None:
        """Let go of every client made so far, before their servers go; what is asked for afterwards is made anew."""
        for name in ("quarantine", "producer", "partitions"):
            self.__dict__.pop(name, None)
        self.clients.close()

    @cached_property
    def partitions(self) -> PartitionBook:
        """How many partitions the topics have, by the log."""
        return PartitionBook(self.clients.admin, self.log.grown)

    @cached_property
    def producer(self) -> PlainProducer:
        """For commands."""
        return PlainProducer(self.clients.kafka)

    @cached_property
    def payloads(self) -> S3Payloads:
        """Where large values of the quarantine are kept."""
        return S3Payloads(self.clients.s3, self.settings.s3.bucket)

    @cached_property
    def quarantine(self) -> QuarantineWriter:
        """For records that cannot be applied."""
        return QuarantineWriter(self.producer, RecordCodec(self.clients.catalog), self.payloads)

    def key_order(self, projection: Any) -> KeyOrder:
        """What a live projection must not take now, by the quarantine topic."""
        ordered: frozenset[str] = getattr(projection, "key_ordered", frozenset())
        return KeyOrder(projection.name, ordered, self.log.quarantine_since, projection.load_position)

    @cached_property
    def generations(self) -> dict[str, int]:
        """The live generation by projection, 1 where none was swapped."""
        return self.log.generations()

    def archive(self, generation: int | None = None) -> ArchiveReader:
        """The raw archive, by default the live generation."""
        return ArchiveReader(self.clients.s3, self.settings.s3.bucket, generation or self.generations.get("archive", 1))

    def warehouse(self, generation: int | None = None) -> Any:
        """The warehouse projection, by default the live generation."""
        from projections.warehouse import WarehouseProjection

        generation = generation or self.generations.get("warehouse", 1)
        if (database := self.redshift) is not None:
            from projections.warehouse.redshift_sink import RedshiftWarehouse

            return RedshiftWarehouse(database, generation)
        return WarehouseProjection(self.warehouse_dsn, generation)

    @cached_property
    def redshift(self) -> RedshiftDatabase | None:
        """The warehouse's Redshift, none where it is a Postgres. Nothing is opened yet.

        Raises:
            ProjectionError: the address or the role is malformed.
        """
        if not self.warehouse_dsn.startswith("redshift"):
            return None
        from projections.warehouse.redshift import RedshiftDatabase

        given = self.settings.warehouse
        return RedshiftDatabase(self.warehouse_dsn, self.clients.s3, self.settings.s3.bucket, given.staging_prefix, given.iam_role)

    def curated(self, generation: int | None = None) -> Any:
        """The curated table, by default the live generation."""
        from projections.curated import CuratedCatalog, CuratedProjection

        catalog = CuratedCatalog(self.curated_dsn, self.settings.s3.iceberg_config())
        return CuratedProjection(catalog, self.clients.s3, self.settings.s3.bucket, generation or self.generations.get("curated", 1))

    @property
    def curated_dsn(self) -> str:
        """The address of the database that holds the Iceberg catalog, password included.

        Raises:
            InvalidValue: none is given and the warehouse is Redshift, which cannot move a pointer by compare-and-set.
        """
        given = self.settings.curated.catalog
        dsn = given.get_secret_value() if given is not None else self.warehouse_dsn
        if dsn.startswith("redshift"):
            raise InvalidValue("curated.catalog", "the warehouse is Redshift: set TIDEMARK_CURATED__CATALOG to a Postgres for the catalog")
        return dsn

    def store(self, name: str, generation: int | None = None) -> Any:
        """The store of a read model, by default the live generation.

        Raises:
            InvalidValue: no such read model.
            BrokenProjection: an installed one cannot be used.
        """
        if name == "graph":
            return self.graph()
        if name in BUILT_IN:
            return getattr(self, name)(generation)
        projection = read_model(name).table_projection()
        return projection(self.warehouse_dsn, generation or self.generations.get(name, 1))

    def schemas(self, name: str) -> Any:
        """The generations of a read model in schemas: the warehouse's, or an installed projection's (in Postgres alone)."""
        from projections.table_projection import live_schema
        from projections.warehouse import SchemaGenerations

        if name == "warehouse" and self.redshift is not None:
            from projections.warehouse.redshift_generations import RedshiftGenerations

            return RedshiftGenerations(self.redshift)
        return SchemaGenerations(self.warehouse_dsn, live_schema(name))

    def was_started(self, name: str) -> bool:
        """Whether a read model was ever started here, for those that not everybody runs; the others count as started.

        Raises:
            StoreUnavailable: its store does not answer.
        """
        if name == "curated":
            return self.has_curated()
        return name in BUILT_IN or self.generations.get(name, 1) in self.schemas(name).generations()

    def has_curated(self) -> bool:
        """Whether the curated table was ever started here.

        Raises:
            StoreUnavailable: its catalog does not answer.
        """
        is_possible = self.settings.curated.catalog is not None or not self.warehouse_dsn.startswith("redshift")
        return is_possible and bool(self.curated().exists())

    @property
    def warehouse_dsn(self) -> str:
        """The warehouse's address, password included."""
        dsn = self.settings.warehouse.dsn
        return dsn.get_secret_value() if dsn is not None else ""

    def graph(self) -> Any:
        """The wallet graph of the server in use: on Community the server serves one generation."""
        from projections.wallet_graph import WalletGraphProjection

        return WalletGraphProjection(self.clients.neo4j, self.settings.neo4j.database)

    def reactor(self, name: str) -> Notifier:
        """A reactor; making it sends nothing. There is one: `notifier`."""
        from infra.notifier import Notifier

        assert name == Notifier.name
        return Notifier(self.clients.aws("sns"), self.clients.aws("sqs"))

    def ledger_file(self, name: str) -> Path:
        """Where a reactor's ledger lies, if it was ever started here."""
        return self.settings.stack_dir / name / "ledger.sqlite"

    def ledger(self, name: str) -> SqliteLedger:
        """A reactor's ledger; made where there is none.

        Raises:
            StoreUnavailable: it cannot be read or written.
        """
        from infra.ledger import SqliteLedger

        return SqliteLedger(self.ledger_file(name))

    def verifier(self, patience_s: float = 0.0) -> Verifier:
        """Proves stores equal to this log.

        Args:
            patience_s: how long a store that is behind, and does not move, is waited for.
        """
        from projections.coverage import Visible
        from projections.verify import Aside, Verifier

        def aside() -> Aside:
            found = self.log.quarantine_state()
            return Aside(frozenset(found.entries), frozenset(found.dropped))

        return Verifier(
            lambda topics, start, end: self.log.read(topics, start, end), self.log.ends, aside, self.clients.catalog,
            self.log.starts, self.log.heads, Visible(self.log.show), patience_s,
        )  # fmt: skip

    def sink(self, name: str, projection: Any, group: str | None = None) -> Worker:
        """A worker around a projection; another group reads independently (a rebuild beside the live one)."""
        work: Work
        if name == "archive":
            work = RawWork(projection)
        else:
            work = SinkWork(projection, self.clients.catalog, self.quarantine, self.key_order(projection))
        policy = read_model(name).policy
        group = group or f"tidemark-{name}"
        source = KafkaSource(self.clients.kafka, projection.topics, group, f"{group}-{self.instance}", partitions=self.partitions)
        return Worker(LiftedSource(source, self.log.history, projection.topics, may_begin_late=name == "archive"), work, policy)

    def worker(self, name: str) -> Worker:
        """The worker of a name in `WORKERS`, or of an installed projection.

        Raises:
            NotReady: something must happen before it can start.
            InvalidValue: no such worker.
            BrokenProjection: an installed projection cannot be used.
            GrownElsewhere: a topic has partitions that the log does not know.
        """
        self.partitions.of(PARTITIONS)
        return WORKERS[name](self) if name in WORKERS else self._in_schemas(name)

    def leadership(self, name: str) -> Leadership | None:
        """Where one process of a worker works while the others stand by: this one's candidature. None where they share partitions."""
        return Leadership(self.clients.kafka, name, self.instance) if name in STANDING_BY else None

    def follow(self, name: str) -> None:
        """Keep a worker that stands by near the log, so that it need not read all of that when it takes over."""
        if name == "command-handler":
            seen = self._seen()
            try:
                self._handler(seen).catch_up(self.log.read)
            finally:
                seen.close()  # a process may have it open once, and whoever takes over opens it anew

    def _seen(self) -> SeenTransactions:
        """The handler's memory."""
        from infra.seen_transactions import SeenTransactions

        folder = self.settings.stack_dir / process_name("command-handler", self.instance)
        return SeenTransactions(folder, self.clients.admin.log_id())

    def _handler(self, seen: SeenTransactions) -> CommandHandler:
        from infra.command_handler import CommandHandler

        return CommandHandler(self.clients.catalog, seen, AUTHORISED, lambda: self.clients.admin.ends([TRANSACTION_EVENTS]))

    def _command_handler(self) -> Worker:
        handler = self._handler(self._seen())
        # Fence the older handler first: what it committed until then is what the state is restored from.
        worker = self._transformer(handler, FlushPolicy(HANDLER_BATCH, 0.0, gathers=True))
        handler.restore(self.log.read)
        return worker

    def _archive(self) -> Worker:
        archive = self.archive()
        archive.prepare(self.clients.catalog.schemas())
        archive.mark_beginning(archive.begins_at(self.log.starts(archive.topics)))
        return self.sink("archive", archive)

    def _warehouse(self) -> Worker:
        return self._in_schemas("warehouse")

    def _in_schemas(self, name: str) -> Worker:
        projection = self.store(name)
        projection.load_position()
        if hasattr(projection, "clean_up"):  # what a crash left outside of the store's transaction
            projection.clean_up()
        generations = self.schemas(name)
        if not generations.shows(projection.generation):
            generations.publish(projection.generation)
        return self.sink(name, projection)

    def _graph(self) -> Worker:
        graph = self.graph()
        graph.prepare()
        return self.sink("graph", graph)

    def _curated(self) -> Worker:
        curated = self.curated()
        curated.load_position()
        curated.publish()
        return self.sink("curated", curated)

    def _scorer(self) -> Worker:
        from infra.endpoint import SageMakerEndpoint
        from infra.restatements import outdated, restate_features
        from ml.packaging import load_serving_encoder
        from ml.scorer import Scorer

        deployed = self.log.deployed()
        if deployed is None:
            raise NotReady(NO_MODEL)
        encoder, card = load_serving_encoder(self.package(deployed.package_uri), deployed.package_sha256)
        # Fence the older scorer first: from where it got to on, the features are ours to restate.
        log = self._transactions(Scorer)
        first = self.log.first_scored_seq()
        reached = max(first, self.log.next_seq(SCORE_EVENTS))
        left_out = restate_features(self.log, self.clients, self.producer, reached)
        scorer = Scorer(
            self.clients.catalog, SageMakerEndpoint(self.settings), encoder, deployed.model_version, first,
            bool(card["scores_transactions"]), left_out, outdated(self.log, left_out, lambda: scorer.next_seq()),
        )  # fmt: skip
        position = scorer.restore(self.log.read, log.load_position())
        if not log.load_position() and position:
            log.commit((), (), position)  # so that the runner begins where the model does
        return self._ordered(scorer, log, FlushPolicy(512, 0.0, gathers=True), drain_s=SCORER_DRAIN_S)

    def _alerts(self) -> Worker:
        from ml.alerting import Alerting

        if self.log.deployed() is None:
            raise NotReady(NO_MODEL)
        watch = PolicyWatch(self.log)
        alerting = Alerting(self.clients.catalog, watch.held.policy.alerts, self.log.first_scored_seq(), watch.is_replaced)
        log = self._transactions(alerting)
        alerting.restore(self.log.read, log.load_position())
        return self._ordered(alerting, log, FlushPolicy(2_000, 0.0, gathers=True))

    def _rules(self) -> Worker:
        from infra.rule_alerts import RuleAlerts

        watch = PolicyWatch(self.log)
        rules = RuleAlerts(self.clients.catalog, watch.held, watch.is_replaced)
        # Fence the older process first: what it committed until then is where this one goes on.
        log = self._transactions(rules)
        position = rules.restore(self.log.read, log.load_position(), lambda: self.clients.admin.ends(rules.topics))
        if not log.load_position() and position:
            log.commit((), (), position)  # alerts are for what comes from now on
        return self._ordered(rules, log, FlushPolicy(5_000, 0.0, gathers=True))

    def _notifier(self) -> Worker:
        notifier = self.reactor("notifier")
        notifier.prepare()
        group = "tidemark-notifier"
        kafka = KafkaSource(self.clients.kafka, notifier.topics, group, f"{group}-1", is_alone=True, partitions=self.partitions)
        source = HistorySource(self.log.history, kafka, notifier.topics)
        return Worker(source, LedgerWork(notifier, self.ledger("notifier"), self.clients.catalog, self.quarantine), FlushPolicy(1_000, 0.2))

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

    def trained_package(self, model_version: str) -> tuple[bytes, str]:
        """A trained model's package and its hash, by what the log says of it.

        Raises:
            NotReady: no such model was trained, or its package is gone.
        """
        trained = self.log.trained()
        if model_version not in trained:
            known = f"trained are {', '.join(sorted(trained))}" if trained else "none was trained yet: `tidemark train`"
            raise NotReady(f"no model {model_version} was trained; {known}")
        uri, sha256 = trained[model_version]
        return self.package(uri), sha256

    def _transactions(self, transformer: Transformer | type[Transformer]) -> KafkaTransactions:
        name = f"tidemark-{transformer.name}"
        return KafkaTransactions(self.clients.kafka, name, name, transformer.topics, self.clients.admin)

    def _transformer(self, transformer: Transformer, policy: FlushPolicy) -> Worker:
        return self._ordered(transformer, self._transactions(transformer), policy, HANDLER_DRAIN_S)

    def _ordered(self, transformer: Transformer, log: KafkaTransactions, policy: FlushPolicy, drain_s: float = DRAIN_S) -> Worker:
        group = f"tidemark-{transformer.name}"
        kafka = KafkaSource(
            self.clients.kafka, transformer.topics, group, f"{group}-{self.instance}", is_alone=True, drain_s=drain_s,
            partitions=self.partitions,
        )  # fmt: skip
        source = HistorySource(self.log.history, kafka, transformer.topics)
        kept = QuarantiningTransactions(log, RecordCodec(self.clients.catalog), self.payloads)
        return Worker(source, TransactionWork(transformer, kept, self.clients.catalog), policy)


WORKERS: dict[str, Callable[[Composition], Worker]] = {
    "command-handler": Composition._command_handler,
    "archive": Composition._archive,
    "curated": Composition._curated,
    "warehouse": Composition._warehouse,
    "graph": Composition._graph,
    "scorer": Composition._scorer,
    "alerts": Composition._alerts,
    "rules": Composition._rules,
    "notifier": Composition._notifier,
}
