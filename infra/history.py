"""History for training: transactions of the log in order of seq, and the labels known by a moment."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from infra.composition import Composition
from ml.datasets import KnownLabel
from ml.fields import TRANSACTION_FIELDS
from projections.merge import SeqMerge
from projections.records import NO_SEQ, RecordBatch
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS, WALLET_EVENTS

if TYPE_CHECKING:
    from ml.training import Labels

_POSITIVE = {"illicit": True, "licit": False}


def transactions_in_order(composition: Composition, first_seq: int = 0) -> Generator[pa.Table]:
    """Tables of `TransactionRecorded` in order of seq from `first_seq` on, with `_seq` beside the fields that features use."""
    return in_order_of_seq(composition.clients.catalog, composition.log.read([TRANSACTION_EVENTS], {}), first_seq)


def in_order_of_seq(
    catalog: SchemaCatalog, batches: Iterable[RecordBatch], first_seq: int = 0, fields: tuple[str, ...] = TRANSACTION_FIELDS
) -> Generator[pa.Table]:
    """The same from any records of `transaction-events` that hold every seq from `first_seq` on; `fields` without any are all."""
    codec = ColumnCodec(catalog, {"TransactionRecorded": fields})
    merge = SeqMerge(first_seq)
    for batch in batches:
        seqs = batch.seqs()
        ready, _ = merge.push(batch.take(np.flatnonzero((seqs != NO_SEQ) & (seqs >= first_seq))))
        for run in ready:
            found = codec.decode(run.values).tables.get("TransactionRecorded")
            if found is not None:
                yield found.table.append_column("_seq", pa.array(run.seqs()[found.indexes]))


def known_labels(composition: Composition, at: datetime) -> Labels:
    """Labels of the log whose `known_at` is not later than `at`; the last one given counts, `unknown` takes one back."""
    from ml.training import Labels  # torch takes seconds to import: only who trains pays

    return Labels(*labels_of_log(composition, at))


def labels_of_log(composition: Composition, at: datetime) -> tuple[dict[str, KnownLabel], dict[str, KnownLabel]]:
    """The same, of wallets and of transactions by their id."""
    wallets: dict[str, KnownLabel] = {}
    transactions: dict[str, KnownLabel] = {}
    for name, record, *_ in composition.log.events(WALLET_EVENTS):
        if name not in ("WalletLabelled", "TransactionLabelled") or record["known_at"] > at:
            continue
        found, key = (wallets, record["wallet_id"]) if name == "WalletLabelled" else (transactions, record["tx_id"])
        if record["label"] in _POSITIVE:
            found[key] = KnownLabel(_POSITIVE[record["label"]], record["known_at"])
        else:
            found.pop(key, None)
    return wallets, transactions
