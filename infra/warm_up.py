"""Compiles what numba compiles, once, in set-up: a minute that no worker then waits for. The result is kept beside the code."""

from __future__ import annotations

import numpy as np

from graph.features import FeatureState, TransactionColumns
from infra.keyed_hash import KEY_BYTES, keyed_hashes
from infra.message_columns import compile_loops
from infra.simulator.generator import SimulatorOptions, simulate
from ml.serving_encoder import ServingEncoder
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.column_encoder import ColumnEncoder
from schema_registry.transaction_rules import broken_rules


def warm_up() -> None:
    """Run each compiled loop over a few simulated transactions."""
    table = simulate(SimulatorOptions(count=200)).table
    catalog = SchemaCatalog.numbered()
    transactions = ColumnCodec(catalog).decode(ColumnEncoder(catalog).encode(table)).tables["TransactionRecorded"].table
    seen = FeatureState().observe(TransactionColumns.from_arrow(transactions))
    assert seen.neighbourhoods is not None
    ServingEncoder.blank().embed(seen.neighbourhoods)
    broken_rules(transactions)
    compile_loops()
    keyed_hashes(np.zeros(8, np.uint8), np.array([0]), np.array([8]), bytes(KEY_BYTES))


if __name__ == "__main__":
    warm_up()
