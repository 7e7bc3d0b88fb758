"""A simulated history for benches that begin with one: recorded by the handler, labels included, and archived."""

from __future__ import annotations

from threading import Event

from domain.commands import LabelWallet
from infra.bench.log_stages import handler_work
from infra.bench.stream import Stream
from infra.composition import HANDLER_BATCH, Composition
from infra.stack import Stack
from projections.runner import FlushPolicy, Runner
from schema_registry.contracts import COMMANDS
from schema_registry.record_codec import RecordCodec


def record(composition: Composition, stack: Stack, events: int) -> None:
    """Send so many simulated transactions and their wallets' labels, and let the handler record them."""
    composition.archive().prepare()
    stream = Stream(composition.clients.catalog, events)
    codec = RecordCodec(composition.clients.catalog)
    at = stream.simulation.table["occurred_at"][0].as_py()
    labels = [LabelWallet(wallet, label, "simulator", at) for wallet, label in stream.simulation.labels.items()]
    composition.producer.send(COMMANDS, *stream.take(events))
    composition.producer.send(COMMANDS, [x.wallet_id.encode() for x in labels], [codec.encode_event(x) for x in labels])
    composition.producer.flush()
    source, work, log, seen = handler_work(composition, stack.state.folder / "bench-handler")
    Runner(source, work, FlushPolicy(HANDLER_BATCH, 0.0, gathers=True)).run(Event(), composition.log.ends([COMMANDS]))
    seen.close()
    log.close()


def archive(composition: Composition) -> None:
    """Bring the archive to the head as it is now."""
    worker = composition.worker("archive")
    Runner(worker.source, worker.work, worker.policy).run(Event(), composition.log.ends(worker.work.topics))
