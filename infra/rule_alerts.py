"""From the policy's rules to alerts: every transaction in order of seq is judged, and a rule that speaks asks for a look at its wallet.

It only asks (`RaiseAlert` on the command topic), as `ml.alerting` does for scores; the case aggregate decides whether that is a new alert
or joins an open one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa

from domain.commands import RaiseAlert
from domain.events import AlertReason
from domain.log import Position
from domain.policy import TEXT_FIELDS, HeldPolicy, Policy, PolicyReplaced
from domain.rules import Hit, RuleEngine, by_wallet
from domain.values import EPOCH, MAX_TEXT_LENGTH
from projections.merge import SeqMerge
from projections.protocol import EventBatch, Rejection
from projections.records import RecordBatch
from projections.work import Append
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, DecodedTable
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

RULE_FIELDS = ("tx_id", "amount", "occurred_at", *TEXT_FIELDS)
"""What a rule may see of a `TransactionRecorded`."""
CERTAIN = 1.0
"""Score and threshold of an alert by rule: it has no probability, and stands with the strongest."""

_Read = Callable[[Sequence[str], Position, Position], Iterator[RecordBatch]]


class RuleAlerts:
    """A transformer of `transaction-events` in order of seq. Call `restore` before the first `process`.

    Args:
        is_replaced: whether another policy holds meanwhile; asked before each batch.
    """

    name = "rules"
    topics: tuple[str, ...] = (TRANSACTION_EVENTS,)
    ordered_topic: str | None = TRANSACTION_EVENTS
    is_raw = False

    def __init__(self, catalog: SchemaCatalog, held: HeldPolicy, is_replaced: Callable[[], bool] = lambda: False) -> None:
        policy = self._policy = held.policy
        self._catalog, self._since_ms, self._is_replaced = catalog, round(held.since.timestamp() * 1000), is_replaced
        self._codec = RecordCodec(catalog)
        # Without rules nothing is decoded: the worker only keeps its place, so that a later policy begins where it is set.
        self.reads: Mapping[str, tuple[str, ...]] = {"TransactionRecorded": RULE_FIELDS} if policy.rules else {}
        self._engine = RuleEngine(policy)
        self._next_seq = 0

    def next_seq(self) -> int:
        """The first seq that was not judged yet."""
        return self._next_seq

    def restore(self, read: _Read, committed: Position, ends: Callable[[], Position]) -> Position:
        """Let the rules see what was judged already; on the first start all that is there, of which nobody is alerted any more.

        Args:
            read: committed records of topics from one position to another.
            committed: the stored position, empty before the first start.
            ends: where the topics end now; asked on the first start.

        Returns:
            The position to go on from.
        """
        end = committed or ends()
        codec, merge = ColumnCodec(self._catalog, self.reads), SeqMerge(0)
        for batch in read(self.topics, {}, end):
            for ready in merge.push(batch)[0]:
                found = codec.decode(ready.values).tables.get("TransactionRecorded") if self.reads else None
                for row, at_ms in _timed(found, ready) if found is not None else ():
                    # Of what was there before the policy nobody was told: it must not quiet a rule now.
                    (self._engine.judge if committed and at_ms >= self._since_ms else self._engine.observe)(row)
        self._next_seq = merge.next_seq
        # A transaction's partitions become readable one after the other: of what came too early the rest is still to be read.
        return {**end, **{(TRANSACTION_EVENTS, partition): offset for partition, offset in merge.first_waiting().items()}}

    def process(self, events: EventBatch, batches: Sequence[RecordBatch]) -> tuple[list[Append], list[Rejection]]:
        """Ask for alerts. See `projections.work.Transformer`.

        Raises:
            PolicyReplaced: start again, with the policy that holds.
        """
        if self._is_replaced():
            raise PolicyReplaced(f"another policy than {self._policy.title} holds: the rules start again with it")
        self._next_seq = max([self._next_seq, *(int(batch.seqs().max()) + 1 for batch in batches if len(batch))])
        table = events.tables.get("TransactionRecorded")
        if table is None or not table.num_rows:
            return [], []
        table = table.sort_by("_seq")
        requests: list[RaiseAlert] = []
        appended = table["_timestamp_ms"].to_pylist()
        for row, seq, at_ms in zip(rule_rows(table, appended), table["_seq"].to_pylist(), appended, strict=True):
            requests += rule_requests(self._policy, self._engine.judge(row), row["tx_id"], seq, at_ms)
        if not requests:
            return [], []
        keys = [request.wallet_id.encode() for request in requests]
        return [Append(COMMANDS, keys, [self._codec.encode_event(request) for request in requests], [()] * len(requests))], []

    def committed(self) -> None:
        """Nothing to do: the state comes back from the log."""


def rule_rows(table: pa.Table, appended_ms: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """Transactions as `RuleEngine.judge` takes them, with their `tx_id`.

    Args:
        table: columns of `RULE_FIELDS`, of the text fields those that there are; any others are ignored.
        appended_ms: when the log had each, in milliseconds since 1970: none counts as later, for a transaction that is dated ahead
            would make all that follow count as of its time.
    """
    there = set(table.column_names)
    none = [None] * table.num_rows
    columns = {name: table[name].to_pylist() if name in there else none for name in ("tx_id", "amount", *TEXT_FIELDS)}
    occurred = table["occurred_at"].cast(pa.int64()).to_pylist()
    columns["occurred_us"] = (
        occurred if appended_ms is None else [min(at, ms * 1_000) for at, ms in zip(occurred, appended_ms, strict=True)]
    )
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _timed(found: DecodedTable, batch: RecordBatch) -> Iterator[tuple[dict[str, Any], int]]:
    """The transactions of a batch, each with when the log had it in milliseconds since 1970."""
    appended = batch.timestamps_ms[found.indexes].tolist()
    return zip(rule_rows(found.table, appended), appended, strict=True)


def rule_requests(policy: Policy, hits: Sequence[Hit], tx_id: str, tx_seq: int, appended_ms: int) -> Iterator[RaiseAlert]:
    """One request for each wallet that rules spoke of because of one transaction, whatever number of them.

    Args:
        appended_ms: when the log had the transaction, in milliseconds since 1970.
    """
    for wallet_id, spoken in by_wallet(hits).items():
        yield RaiseAlert(
            wallet_id, AlertReason.RULE, CERTAIN, CERTAIN, tx_id, tx_seq,
            "; ".join(f"{hit.rule}: {hit.says}" for hit in spoken)[:MAX_TEXT_LENGTH], "",
            EPOCH + timedelta(milliseconds=appended_ms), _joined([hit.rule for hit in spoken]), policy.title,
        )  # fmt: skip


def _joined(names: Sequence[str]) -> str:
    """Names with commas between, as many as a text may hold."""
    found = ",".join(names)
    return found if len(found) <= MAX_TEXT_LENGTH else found[:MAX_TEXT_LENGTH].rpartition(",")[0]
