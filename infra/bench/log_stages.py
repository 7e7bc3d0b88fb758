"""Commands → events, decoding, and Kafka → raw archive, each beside its bare counterpart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import fastavro
from confluent_kafka import Consumer, TopicPartition

from infra.bench.measure import Stage, rate
from infra.command_handler import CommandHandler
from infra.composition import AUTHORISED, HANDLER_BATCH, Composition
from infra.kafka.client import READ_OPTIONS
from infra.kafka.producer import PlainProducer
from infra.kafka.source import KafkaSource
from infra.kafka.transactions import KafkaTransactions
from infra.seen_transactions import SeenTransactions
from projections.runner import FlushPolicy, Runner
from projections.work import TransactionWork
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS, PARTITIONS, TRANSACTION_EVENTS, contracts

PLAIN = "bench-plain"
_DECODED = 100_000  # records a decoding repetition; fastavro takes two seconds for them


def command_stage(composition: Composition, stage: Stage, keys: Sequence[bytes], values: Sequence[bytes], folder: Path) -> None:
    """One repetition: a bare acknowledged produce of the values, then the same values as commands through the handler."""
    producer = PlainProducer(composition.clients.kafka)
    composition.clients.admin.create({PLAIN: PARTITIONS[TRANSACTION_EVENTS]})

    def bare() -> None:
        producer.send(PLAIN, keys, values)
        producer.flush()

    bare_rate = rate(len(values), bare)
    producer.send(COMMANDS, keys, values)
    producer.flush()
    source, work, log, seen = handler_work(composition, folder)
    runner = Runner(source, work, FlushPolicy(HANDLER_BATCH, 0.0, gathers=True))
    until = composition.log.ends([COMMANDS])
    stage.add(rate(len(values), lambda: runner.run(Event(), until)), bare_rate)
    seen.close()
    log.close()


def handler_work(composition: Composition, folder: Path) -> tuple[KafkaSource, TransactionWork, KafkaTransactions, SeenTransactions]:
    """A command handler of the bench's own, with an index in `folder`; the last two are the caller's to close."""
    seen = SeenTransactions(folder, composition.clients.admin.log_id())
    handler = CommandHandler(composition.clients.catalog, seen, AUTHORISED, lambda: composition.clients.admin.ends([TRANSACTION_EVENTS]))
    log = KafkaTransactions(composition.clients.kafka, "bench-handler", "bench-handler", handler.topics, composition.clients.admin)
    handler.restore(composition.log.read)
    source = KafkaSource(composition.clients.kafka, handler.topics, "bench-handler", "bench-handler", is_alone=True)
    return source, TransactionWork(handler, log, composition.clients.catalog), log, seen


def decode_stage(composition: Composition, stage: Stage, values: Sequence[bytes]) -> None:
    """One repetition: all fields by fastavro, then by the columnar decoder."""
    some = list(values[:_DECODED])
    schema = fastavro.parse_schema(contracts()["TransactionRecorded"].latest)

    def bare() -> None:
        for value in some:
            fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)

    codec = ColumnCodec(composition.clients.catalog)
    codec.decode(some[:10])
    bare_rate = rate(len(some), bare)
    stage.add(rate(len(some), lambda: codec.decode(some)), bare_rate)


def archive_stage(composition: Composition, stage: Stage, generation: int) -> None:
    """One repetition: consume all transaction events and join their values, then archive the same topic into a new generation."""
    ends = composition.log.ends([TRANSACTION_EVENTS])
    count = sum(len(batch) for batch in composition.log.read([TRANSACTION_EVENTS], {}))
    bare_rate = rate(count, lambda: _consume_and_join(composition, count))
    archive = composition.archive(generation)
    archive.prepare()
    archive.topics = (TRANSACTION_EVENTS,)
    worker = composition.sink("archive", archive, f"bench-archive-{generation}")
    stage.add(rate(count, lambda: Runner(worker.source, worker.work, worker.policy).run(Event(), ends)), bare_rate)


def _consume_and_join(composition: Composition, count: int) -> int:
    consumer = Consumer({**composition.clients.kafka, **READ_OPTIONS, "group.id": "bench-bare"})
    starts = composition.clients.admin.starts([TRANSACTION_EVENTS])
    consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in starts.items()])
    total = seen = 0
    while seen < count:
        messages = consumer.consume(10_000, 0.05)
        values = [message.value() for message in messages if message.error() is None]
        seen += len(values)
        total += len(b"".join(value for value in values if value is not None))
    consumer.close()
    return total


def bare_rates(composition: Composition) -> dict[str, float]:
    """Bare produce and bare consume-and-join of the log's transaction events, in events a second; the scratch topic goes again."""
    batches = list(composition.log.read([TRANSACTION_EVENTS], {}))
    count = sum(map(len, batches))
    if not count:
        return {}
    consume = rate(count, lambda: _consume_and_join(composition, count))
    keys = [key for batch in batches for key in batch.keys]
    values = [value for batch in batches for value in batch.values]
    composition.clients.admin.create({PLAIN: PARTITIONS[TRANSACTION_EVENTS]})
    producer = PlainProducer(composition.clients.kafka)

    def produce() -> None:
        producer.send(PLAIN, keys, values)
        producer.flush()

    produced = rate(count, produce)
    composition.clients.admin.delete([PLAIN])
    return {"produce_per_s": round(produced, 1), "consume_per_s": round(consume, 1)}


def slices(n: int, parts: int) -> Iterator[slice]:
    """`n` cut into `parts` equal slices."""
    step = n // parts
    for i in range(parts):
        yield slice(i * step, (i + 1) * step)
