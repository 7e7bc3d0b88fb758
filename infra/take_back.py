"""Taking back: a run that was ingested with a wrong mapping, or single transactions (chargeback, reorganisation).

Nothing is deleted. Each transaction of the run gets a `VoidTransaction` command; the events that follow tell every read model what no
longer counts. The corrected rows may be ingested right behind: where their payload differs, they are recorded as the next revision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from domain.commands import VoidTransaction
from domain.errors import TidemarkError
from infra.composition import Composition
from infra.read_your_write import token_now
from projections.records import NO_SEQ
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import COMMANDS, TRANSACTION_EVENTS
from schema_registry.record_codec import RecordCodec

SEND_ROWS = 20_000
_READS = {"TransactionRecorded": ("tx_id", "origin.ingest_id")}


class NothingToVoid(TidemarkError):
    """No recorded transaction comes from that run."""


@dataclass(frozen=True, slots=True)
class VoidResult:
    """What became of a run: `recorded` transactions of it stand in the log, `void_before` of them are void already, `sent` commands
    went out for the rest. `token` names the place in the command topic after the last one."""

    ingest_id: str
    recorded: int
    void_before: int
    sent: int
    token: str

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "ingest_id": self.ingest_id, "recorded": self.recorded, "void_before": self.void_before, "sent": self.sent, "token": self.token,
        }  # fmt: skip


def void_run(
    composition: Composition,
    ingest_id: str,
    *,
    reason: str,
    actor: str,
    is_dry: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VoidResult:
    """Send a void for every transaction that stands with this `ingest_id`. Safe to run again: what is void is left out.

    A row of the run that was recorded before by another run (a duplicate) is that other run's and stays.

    Args:
        is_dry: only count.
        progress: told the records read and those to read.

    Raises:
        NothingToVoid: the log has no transaction of that run.
        LogError: Kafka does not answer.
    """
    voided: dict[str, int] = {}
    for tx_id, seq in composition.log.voids():
        voided[tx_id] = max(seq, voided.get(tx_id, NO_SEQ))
    codec = RecordCodec(composition.clients.catalog)
    recorded = sent = 0
    for tx_ids, seqs in _transactions_of(composition, ingest_id, progress):
        standing = [(tx_id, seq) for tx_id, seq in zip(tx_ids, seqs, strict=True) if voided.get(tx_id, NO_SEQ) < seq]
        recorded += len(tx_ids)
        sent += len(standing)
        for start in range(0, 0 if is_dry else len(standing), SEND_ROWS):
            now = datetime.now(UTC)
            commands = [VoidTransaction(tx_id, seq, reason, None, actor, now) for tx_id, seq in standing[start : start + SEND_ROWS]]
            composition.producer.send(COMMANDS, [c.tx_id.encode() for c in commands], [codec.encode_event(c) for c in commands])
    if not recorded:
        raise NothingToVoid(
            f"no recorded transaction has the ingest id {ingest_id[:80]!r}; `tidemark ingest` prints a run's id, and each"
            " transaction carries it in origin.ingest_id (fact_transaction.origin_ingest_id in the warehouse)"
        )
    composition.producer.flush()
    return VoidResult(ingest_id, recorded, recorded - sent, sent, str(token_now(composition)))


def _transactions_of(
    composition: Composition, ingest_id: str, progress: Callable[[int, int], None]
) -> Iterator[tuple[list[str], list[int]]]:
    codec = ColumnCodec(composition.clients.catalog, _READS)
    end = composition.log.ends([TRANSACTION_EVENTS])
    total, done = sum(end.values()), 0
    for batch in composition.log.read([TRANSACTION_EVENTS], {}, end):
        decoded = codec.decode(batch.values).tables.get("TransactionRecorded")
        done += len(batch)
        progress(done, total)
        if decoded is None:
            continue
        is_of_run = pc.equal(decoded.table["origin.ingest_id"].cast(pa.string()), ingest_id).to_numpy().astype(bool)
        if is_of_run.any():
            ids = decoded.table["tx_id"].filter(pa.array(is_of_run)).to_pylist()
            yield ids, batch.seqs()[decoded.indexes[is_of_run]].tolist()
