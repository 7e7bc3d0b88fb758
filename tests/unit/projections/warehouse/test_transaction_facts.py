"""Facts are the events that they were, for all that features read: of every shape of transaction."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa

from graph.features import FeatureState, TransactionColumns
from ml.fields import TRANSACTION_FIELDS
from projections.warehouse.facts import fact_rows
from projections.warehouse.transaction_facts import _events
from tests.unit.projections.warehouse.events import Placed, batch_of, transaction


def test_features_of_facts_are_those_of_the_events_bit_by_bit() -> None:
    batch = batch_of(Placed(transaction(number), 0, number) for number in range(60))
    events = batch.tables["TransactionRecorded"]
    ((_, rows),) = fact_rows(batch)
    stored = rows.set_column(rows.column_names.index("amount"), "amount", rows["amount"].cast(pa.string()))  # as it leaves the server
    found = _events(pa.concat_tables([stored.slice(0, 3), stored.slice(3)]))
    assert set(TRANSACTION_FIELDS) <= set(found.column_names)
    assert found["_seq"].to_pylist() == events["_seq"].to_pylist()
    ours, theirs = TransactionColumns.from_arrow(found), TransactionColumns.from_arrow(events)
    for field in fields(TransactionColumns):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else np.array_equal(a, b), field
    assert FeatureState().observe(ours).features.tobytes() == FeatureState().observe(theirs).features.tobytes()
