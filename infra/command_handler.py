"""The command handler as a worker: commands in, events in one total order out.

`RecordTransaction` commands are the events' own records: their accepted bytes pass through unchanged, with the next seq in
a header. Everything else is decided record by record by the aggregates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import Enum
from itertools import pairwise
from threading import Thread
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domain import commands as command_module
from domain import events as event_module
from domain.commands import Command, ReleaseWallet
from domain.errors import CommandRefused, InvalidValue
from domain.events import DomainEvent, TransactionHeld, TransactionReleased, TransactionVoided
from domain.handler import Decider, Outcome, TransactionFacts
from domain.log import Headers, Position
from domain.revision import recorded, voided
from domain.values import EPOCH
from infra.seen_transactions import SeenTransactions
from projections.errors import StoreDisagrees
from projections.protocol import EventBatch, Rejection
from projections.records import NO_SEQ, RecordBatch, seq_header, seq_headers
from projections.work import Append
from schema_registry.byte_column import ByteColumn
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, schema_ids
from schema_registry.contracts import CASE_EVENTS, COMMAND_RESULTS, COMMANDS, TRANSACTION_EVENTS, WALLET_EVENTS, contracts
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import RecordCodec
from schema_registry.transaction_rules import FIELDS, broken_rules
from schema_registry.wire import HEADER_LENGTH

POSITION_EVERY_S = 2.0  # how much of the log a restart reads again, against one question to the broker
RESULT_COMMANDS = 20_000  # commands that one `CommandsHandled` tells of: were each refused, it would still be a record that Kafka takes
_TRANSACTION = "TransactionRecorded"
_MARK = "@origin"
_COMMANDS = {kind.__name__: kind for kind in (getattr(command_module, name) for name in contracts() if hasattr(command_module, name))}
_EVENTS = {kind.__name__: kind for kind in get_args(DomainEvent) if isinstance(kind, type)} | {
    name: getattr(event_module, name) for name in contracts() if hasattr(event_module, name) and name != _TRANSACTION
}
READS: Mapping[str, tuple[str, ...]] = {_TRANSACTION: FIELDS}


@dataclass(slots=True)
class _Output:
    """What one Kafka transaction will append: transactions in columns, other events one by one; counts and refusals of one result."""

    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]
    events: list[tuple[str, bytes, bytes, int]]
    outcomes: dict[str, int]
    refusals: list[dict[str, Any]]
    digests: dict[bytes, bytes]


class CommandHandler:
    """A transformer of the command topic. Call `restore` before the first `process`.

    Args:
        authorised: networks where a frozen source may not send.
        log_end: the end of `transaction-events`; asked from a thread of its own while commands are handled.
    """

    name = "command-handler"
    topics: tuple[str, ...] = (COMMANDS,)
    ordered_topic: str | None = None
    reads: Mapping[str, tuple[str, ...]] = {}
    is_raw = True

    def __init__(self, catalog: SchemaCatalog, seen: SeenTransactions, authorised: frozenset[str], log_end: Callable[[], Position]) -> None:
        self._log_end = log_end
        self._marked_at = time.monotonic()
        self._asked: Future[Position] | None = None
        self._reached: Position | None = None
        self._records = RecordCodec(catalog)
        self._columns = ColumnCodec(catalog, READS, mark="origin")
        self._transaction_ids = catalog.ids_of(_TRANSACTION)
        self._seen = seen
        self._view = _SeenView(seen)
        self._decider = Decider(self._view, authorised)
        self._next_seq = 0
        self._position: dict[tuple[str, int], int] = {}
        self._pending: dict[bytes, bytes] = {}

    def next_seq(self) -> int:
        """The seq that the next recorded transaction gets."""
        return self._next_seq

    def restore(self, read: Callable[[Sequence[str], Position], Iterator[RecordBatch]]) -> None:
        """Bring the state back from the log: what the disk does not know of the transactions, and all aggregates.

        Args:
            read: committed records of topics from a position to the end.

        Raises:
            StoreDisagrees: what is known on disk is of another log.
        """
        self.catch_up(read)
        for batch in read([WALLET_EVENTS, CASE_EVENTS], {}):
            seqs = batch.seqs()
            for index, value in enumerate(batch.values):
                event = self._event(value)
                if event is not None:
                    self._decider.evolve(event)
                if isinstance(event, TransactionHeld):
                    self._remember_held(event.record, int(seqs[index]))
                elif isinstance(event, TransactionVoided):
                    self._remember_void(event.tx_id, int(seqs[index]))

    def catch_up(self, read: Callable[[Sequence[str], Position], Iterator[RecordBatch]]) -> None:
        """Bring what the disk knows of the transactions to the log's end; a handler that stands by does it again and again.

        Args:
            read: as in `restore`.

        Raises:
            StoreDisagrees: what is known on disk is of another log.
        """
        self._next_seq, position = self._seen.state()
        self._position = dict(position)
        ends = self._log_end() if position else {}
        for tp, end in sorted(ends.items()):
            if position.get(tp, 0) > end:
                raise StoreDisagrees(
                    f"{tp[0]}-{tp[1]}: the handler knows the log up to {position[tp]}, Kafka ends at {end}: that was another log, or its"
                    f" end was lost. If this log is the right one, remove {self._seen.folder}: it is filled from the log again"
                )
        for batch in read([TRANSACTION_EVENTS], position):
            table = self._columns.decode(batch.values).tables.get(_TRANSACTION)
            seqs = batch.seqs()
            self._position.update(batch.next_offsets())
            self._next_seq = max(self._next_seq, int(seqs.max()) + 1)
            if table is not None:
                rows = table.indexes
                keys, digests = self._identities(table.table, ByteColumn.of(batch.values).take(rows))
                self._remember(keys, digests, seqs[rows].tolist())

    def _remember(self, keys: Sequence[bytes], digests: Sequence[bytes], seqs: Sequence[int]) -> None:
        fresh: dict[bytes, bytes] = {}
        for key, digest, seq, kept in zip(keys, digests, seqs, self._seen.digests(keys), strict=True):
            if seq != NO_SEQ:
                fresh[key] = recorded(fresh.get(key, kept), digest, seq)
        # With the position of what was read, never the log's end: a crash in here must not skip the rest.
        self._seen.add(fresh, self._next_seq, self._position)

    def _remember_held(self, record: bytes, seq: int) -> None:
        """A held transaction is known too, though it stands in no `TransactionRecorded` yet."""
        found = self._columns.decode([record]).tables.get(_TRANSACTION)
        if found is not None and len(found.indexes):
            keys, digests = self._identities(found.table, ByteColumn.of([record]))
            self._remember(keys, digests, [seq] if seq != NO_SEQ else [0])

    def _remember_void(self, tx_id: str, seq: int) -> None:
        kept = self._seen.known(tx_id)
        if kept is not None and seq != NO_SEQ:
            self._seen.add({self._seen.key_of(tx_id): voided(kept, seq)}, self._next_seq, self._position)

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        """Decide commands in order of arrival. See `projections.work.Transformer`."""
        if self._asked is not None and self._asked.done():
            self._reached, self._asked = self._asked.result(), None
        out = _Output([], [], [], [], {}, [], {})
        self._view.pending = out.digests
        rejections: list[Rejection] = []
        results: list[bytes] = []
        for batch in (part for whole in batches for part in _parts(whole)):
            out.outcomes = dict.fromkeys(("recorded", "duplicates", "held", "decided"), 0)
            out.refusals = []
            first_seq = self._next_seq
            bad: list[Rejection] = []
            for is_transactions, run in _runs(batch, self._transaction_ids):
                bad += self._record(run, out) if is_transactions else self._decide(run, out)
            result = {
                "first_offset": int(batch.offsets[0]),
                "next_offset": int(batch.offsets[-1]) + 1,
                "first_seq": first_seq,
                "next_seq": self._next_seq,
                **out.outcomes,
                "quarantined": len(bad),
                "refusals": out.refusals,
            }
            results.append(self._records.encode("CommandsHandled", result))
            rejections += bad
        appends = [Append(TRANSACTION_EVENTS, out.keys, out.values, out.headers)] if out.keys else []
        for topic in dict.fromkeys(topic for topic, *_ in out.events):
            rows = [row for row in out.events if row[0] == topic]
            appends.append(Append(topic, [r[1] for r in rows], [r[2] for r in rows], [_header(r[3]) for r in rows]))
        appends.append(Append(COMMAND_RESULTS, [None] * len(results), results, [()] * len(results)))
        self._pending = out.digests
        return appends, rejections

    def committed(self) -> None:
        """The disk follows the log."""
        # What was the log's end before this transaction began holds nothing but ours, all of it on the disk: the commit has shown
        # that nobody had taken over until then.
        if self._reached is not None:
            self._position, self._reached = dict(self._reached), None
        if self._pending:
            self._seen.add(self._pending, self._next_seq, self._position)
            self._pending = {}
        if self._asked is None and time.monotonic() - self._marked_at > POSITION_EVERY_S:
            self._marked_at = time.monotonic()
            self._asked = _in_background(self._log_end)

    def _record(self, batch: RecordBatch, out: _Output) -> list[Rejection]:
        decoded = self._columns.decode(batch.values)
        rejections = [_rejection(batch, f.index, f.reason, f.message) for f in decoded.failures]
        found = decoded.tables.get(_TRANSACTION)
        if found is None or not len(found.indexes):
            return rejections
        table, indexes = found.table, found.indexes
        broken = broken_rules(table, batch.timestamps_ms[indexes])
        if broken:
            ids = table["tx_id"]
            for rule in broken:
                offset = int(batch.offsets[indexes[rule.index]])
                out.refusals.append(_refusal(offset, f"invalid_{rule.field}", rule.message, ids[rule.index].as_py()))
            keep = np.ones(len(indexes), np.bool_)
            keep[[rule.index for rule in broken]] = False
            table, indexes = table.filter(pa.array(keep)), indexes[keep]
        records = ByteColumn.of(batch.values).take(indexes)
        values = [record or b"" for record in records]
        keys, digests = self._identities(table, records)
        decisions = self._decider.decide_transactions(
            keys, digests, self._next_seq, lambda i: _facts(table, i, values[i], int(batch.timestamps_ms[indexes[i]]))
        )
        out.digests.update(decisions.new_digests)
        outcomes = decisions.outcomes
        is_recorded = np.fromiter((outcome is Outcome.RECORDED for outcome in outcomes), np.bool_, len(outcomes))
        rows = np.flatnonzero(is_recorded)
        wallets = pc.coalesce(table["source_wallet_id"], table["tx_id"]).cast(pa.binary())
        if len(rows) == len(outcomes):
            out.values += values
        else:
            wallets = wallets.take(pa.array(rows))
            out.values += [values[i] for i in rows.tolist()]
            for i, outcome in enumerate(outcomes):
                if outcome is Outcome.CONFLICT:
                    offset = int(batch.offsets[indexes[i]])
                    message = "this tx_id was recorded before with another payload; the first one stands"
                    out.refusals.append(_refusal(offset, "conflicting_duplicate", message, table["tx_id"][i].as_py()))
        out.keys += wallets.to_numpy(zero_copy_only=False).tolist()
        out.headers += seq_headers(self._next_seq, len(rows))
        seq_at = self._next_seq + np.cumsum(is_recorded)
        out.outcomes["recorded"] += len(rows)
        out.outcomes["duplicates"] += outcomes.count(Outcome.DUPLICATE)
        out.outcomes["held"] += outcomes.count(Outcome.HELD)
        self._next_seq += len(rows)
        for i, event in decisions.events:
            self._append_event(event, int(seq_at[i]) - 1, out)
        return rejections

    def _identities(self, table: pa.Table, records: ByteColumn) -> tuple[list[bytes], list[bytes]]:
        """Keys and digests: a digest covers all that happened, which is everything before the record's origin."""
        starts = records.offsets[:-1]
        # The schema id is left out: the same facts under a later schema version are the same transaction.
        digests = self._seen.digests_of(records.data, starts + HEADER_LENGTH, starts + table[_MARK].to_numpy())
        return self._seen.keys_of(*_spans(table["tx_id"])), digests

    def _decide(self, batch: RecordBatch, out: _Output) -> list[Rejection]:
        rejections: list[Rejection] = []
        for index, value in enumerate(batch.values):
            offset = int(batch.offsets[index])
            try:
                name, record = self._records.decode(value)
            except UndecodableRecord as error:
                rejections.append(_rejection(batch, index, error.reason, str(error)))
                continue
            kind = _COMMANDS.get(name)
            if kind is None:
                rejections.append(_rejection(batch, index, "not_a_command", f"expected a command, found {name}"))
                continue
            command: Command = kind(**record)
            held = self._decider.held(command.wallet_id) if isinstance(command, ReleaseWallet) else ()
            try:
                decided = self._decider.decide(command)
            except CommandRefused as error:
                out.refusals.append(_refusal(offset, error.reason, str(error), _subject(record)))
                continue
            except InvalidValue as error:
                out.refusals.append(_refusal(offset, f"invalid_{error.field}", str(error), _subject(record)))
                continue
            out.outcomes["decided"] += 1
            by_tx = {tx.tx_id: tx for tx in held}
            for event in decided:
                self._append_event(event, self._next_seq - 1, out)
                if isinstance(event, TransactionVoided):
                    kept = self._view.known(event.tx_id)
                    assert kept is not None  # or it would have been refused
                    out.digests[self._seen.key_of(event.tx_id)] = voided(kept, self._next_seq - 1)
                elif isinstance(event, TransactionReleased):  # the held record enters the order now, at its release
                    out.keys.append(event.wallet_id.encode())
                    out.values.append(by_tx[event.tx_id].record)
                    out.headers.append(_header(self._next_seq))
                    self._next_seq += 1
        return rejections

    def _append_event(self, event: DomainEvent, seq: int, out: _Output) -> None:
        name = type(event).__name__
        key = getattr(event, "case_id", None) or getattr(event, "wallet_id", None) or getattr(event, "tx_id", "")
        out.events.append((contracts()[name].topic, str(key).encode(), self._records.encode_event(event), seq))

    def _event(self, value: bytes | None) -> DomainEvent | None:
        """An event of our own log as a dataclass; none for what the aggregates do not know or foreign bytes."""
        try:
            name, record = self._records.decode(value)
        except UndecodableRecord:
            return None
        kind = _EVENTS.get(name)
        if kind is None:
            return None
        enums = {f.name: f.type for f in fields(kind)}
        typed = {key: _enum(enums[key], given) for key, given in record.items()}
        event: DomainEvent = kind(**typed)
        return event


class _SeenView:
    """What is on disk, overlaid with what the open Kafka transaction has decided already."""

    def __init__(self, seen: SeenTransactions) -> None:
        self._seen = seen
        self.pending: Mapping[bytes, bytes] = {}

    def digests(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `domain.handler.SeenTransactions`."""
        kept = self._seen.digests(keys)
        if not self.pending:
            return kept
        return [self.pending.get(key, found) for key, found in zip(keys, kept, strict=True)]

    def known(self, tx_id: str) -> bytes | None:
        """See `domain.handler.SeenTransactions`."""
        (found,) = self.digests([self._seen.key_of(tx_id)])
        return found


def _in_background(ask: Callable[[], Position]) -> Future[Position]:
    """The answer to a question that may take long: no command waits for it, and neither does the end of the process."""
    answer: Future[Position] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # raised where the answer is looked at
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    return answer


def _enum(kind: Any, value: Any) -> Any:
    found = getattr(event_module, kind, None) if isinstance(kind, str) else kind
    return found(value) if isinstance(found, type) and issubclass(found, Enum) else value


def _facts(table: pa.Table, i: int, record: bytes, arrived_ms: int) -> TransactionFacts:
    row = {name: table[name][i].as_py() for name in ("tx_id", "network", "source_wallet_id", "target_wallet_id")}
    return TransactionFacts(**row, record=record, arrived_at=EPOCH + timedelta(milliseconds=arrived_ms))


def _spans(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The bytes of a text column without nulls: one buffer, and where each row starts and ends in it."""
    array = column.combine_chunks().cast(pa.large_binary())
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8), places[:-1], places[1:]


def _parts(batch: RecordBatch) -> Iterator[RecordBatch]:
    if len(batch) <= RESULT_COMMANDS:
        yield batch
        return
    for start in range(0, len(batch), RESULT_COMMANDS):
        yield batch.take(np.arange(start, min(start + RESULT_COMMANDS, len(batch))))


def _runs(batch: RecordBatch, transaction_ids: frozenset[int]) -> Iterator[tuple[bool, RecordBatch]]:
    """The batch cut into runs of transactions and of other commands, in order."""
    flags = np.isin(schema_ids(ByteColumn.of(batch.values)), list(transaction_ids))
    if flags.all():
        yield True, batch
        return
    cuts = [0, *(np.flatnonzero(flags[1:] != flags[:-1]) + 1).tolist(), len(batch)]
    for start, end in pairwise(cuts):
        yield bool(flags[start]), batch.take(np.arange(start, end))


def _rejection(batch: RecordBatch, index: int, reason: str, message: str) -> Rejection:
    return Rejection(batch.topic, int(batch.partitions[index]), int(batch.offsets[index]), reason, message)


def _refusal(offset: int, reason: str, message: str, subject: str) -> dict[str, Any]:
    return {"offset": offset, "reason": reason, "message": message[:400], "subject_id": subject[:200]}


def _subject(record: Mapping[str, Any]) -> str:
    return str(record.get("case_id") or record.get("wallet_id") or record.get("tx_id") or "")


def _header(seq: int) -> Headers:
    return (seq_header(seq),)
