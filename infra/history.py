"""History for training: transactions of the log in order of seq, and the labels known by a moment."""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from infra.composition import Composition
from ml.datasets import KnownLabel
from ml.fields import TRANSACTION_FIELDS
from projections.merge import SeqMerge
from projections.records import NO_SEQ
from schema_registry.column_codec import ColumnCodec
from schema_registry.contracts import TRANSACTION_EVENTS, WALLET_EVENTS

if TYPE_CHECKING:
    from ml.training import Labels

_POSITIVE = {"illicit": True, "licit": False}


def transactions_in_order(composition: Composition, first_seq: int = 0) -> Generator[pa.Table]:
    """Tables of `TransactionRecorded` in order of seq from `first_seq` on, with `_seq` beside the fields that features use."""
    codec = ColumnCodec(composition.clients.catalog, {"TransactionRecorded": TRANSACTION_FIELDS})
    merge = SeqMerge(first_seq)
    for batch in composition.log.read([TRANSACTION_EVENTS], {}):
        seqs = batch.seqs()
        ready, _ = merge.push(batch.take(np.flatnonzero((seqs != NO_SEQ) & (seqs >= first_seq))))
        for run in ready:
            found = codec.decode(run.values).tables.get("TransactionRecorded")
            if found is not None:
                yield found.table.append_column("_seq", pa.array(run.seqs()[found.indexes]))


def known_labels(composition: Composition, at: datetime) -> Labels:
    """Labels of the log whose `known_at` is not later than `at`; the last one given counts, `unknown` takes one back."""
    from ml.training import Labels  # torch takes seconds to import: only who trains pays

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
    return Labels(wallets, transactions)
