"""One generation of the warehouse at one moment, beside its worker: checkpoint and rows of the same snapshot."""

from __future__ import annotations

from domain.log import Position
from projections.fingerprint import Fingerprint, fingerprints
from projections.warehouse import statements as sql
from projections.warehouse.canonical import stored_rows
from projections.warehouse.connection import Connect, connector, read_through, run, translated
from projections.warehouse.redshift import RedshiftLoader
from projections.warehouse.sink import schema_of


def snapshot(store: str | Connect | RedshiftLoader, generation: int) -> tuple[Position, dict[str, Fingerprint]]:
    """The checkpoint of a generation and the fingerprint of each table at that checkpoint, whoever writes meanwhile.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        StoreDisagrees: it holds a value that was never written to it.
        ProjectionError: it refuses, for instance because there is no such generation.
    """
    if isinstance(store, RedshiftLoader):
        return store.snapshot(schema_of(generation))
    connect = connector(store) if isinstance(store, str) else store
    with translated("reading a snapshot"), connect() as connection, connection.cursor() as cursor:
        run(cursor, sql.READ_SNAPSHOT)
        run(cursor, f'SET LOCAL search_path TO "{schema_of(generation)}"')
        position = {(topic, partition): offset for topic, partition, offset in run(cursor, sql.LOAD_CHECKPOINTS)}
        with read_through():
            return position, fingerprints(stored_rows(cursor))


def stored_counts(store: str | Connect | RedshiftLoader, generation: int) -> dict[str, int]:
    """How many rows each table of a generation holds, by the server's own estimate; a table never analysed counts 0.

    Raises:
        StoreUnavailable: the warehouse does not answer.
        ProjectionError: it refuses.
    """
    if isinstance(store, RedshiftLoader):
        return store.stored_counts(schema_of(generation))
    connect = connector(store) if isinstance(store, str) else store
    with translated("estimating rows"), connect() as connection, connection.cursor() as cursor:
        return {name: int(rows) for name, rows in run(cursor, ESTIMATED_ROWS, (schema_of(generation),))}


ESTIMATED_ROWS = """
SELECT relname, n_live_tup FROM pg_stat_user_tables
WHERE schemaname = $1 AND relname <> 'checkpoints' AND n_live_tup > 0
ORDER BY relname
"""
