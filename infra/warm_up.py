"""Compiles what numba compiles, once, in set-up: a minute that no worker then waits for. The result is kept beside the code."""

from __future__ import annotations

from graph.features import FeatureState, TransactionColumns
from infra.simulator.generator import SimulatorOptions, simulate
from ml.serving_encoder import ServingEncoder
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec
from schema_registry.column_encoder import ColumnEncoder


def warm_up() -> None:
    """Run each compiled loop over a few simulated transactions."""
    table = simulate(SimulatorOptions(count=200)).table
    catalog = SchemaCatalog.numbered()
    decoded = ColumnCodec(catalog).decode(ColumnEncoder(catalog).encode(table))
    seen = FeatureState().observe(TransactionColumns.from_arrow(decoded.tables["TransactionRecorded"].table))
    assert seen.neighbourhoods is not None
    ServingEncoder.blank().embed(seen.neighbourhoods)


if __name__ == "__main__":
    warm_up()
