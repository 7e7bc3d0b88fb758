"""Where a simulated stream goes: framed commands at a given rate, or a file, with the truth in files beside it."""

from __future__ import annotations

import csv
import gzip
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from infra.lambdas.transaction_json import transaction_to_json
from infra.simulator.generator import Simulation
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_encoder import ColumnEncoder

TRANSACTIONS_CSV, LABELS_CSV = "sample_transactions.csv", "fraud_labels.csv"
"""What a folder of samples holds, for whoever looks for data under these names."""
CHUNK_ROWS = 50_000
_JSON_ROWS = 500
_SLICES_PER_S = 20  # a paced stream comes in slices of 50 ms: smooth to the eye, cheap to make


@dataclass(frozen=True, slots=True)
class CommandChunk:
    """Framed `RecordTransaction` commands with their keys (source wallet, else tx_id), in order of time."""

    values: list[bytes]
    keys: list[bytes]
    first_row: int


@dataclass(frozen=True, slots=True)
class JsonChunk:
    """(partition key, JSON) of transactions in order of time; the key is the source wallet, else tx_id."""

    items: list[tuple[str, bytes]]
    first_row: int


def as_json_records(
    simulation: Simulation,
    *,
    rate: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[JsonChunk]:
    """A simulated stream as JSON records; see `commands` for the rate.

    Raises:
        ValueError: a rate that is not above zero.
    """
    for part, start in _paced(simulation.table, 0, simulation.table.num_rows, _JSON_ROWS, rate, clock, sleep):
        rows = part.to_pylist()
        yield JsonChunk([(row["source_wallet_id"] or row["tx_id"], transaction_to_json(row)) for row in rows], start)


def commands(
    simulation: Simulation,
    catalog: SchemaCatalog,
    *,
    chunk_rows: int = CHUNK_ROWS,
    first_row: int = 0,
    last_row: int | None = None,
    rate: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[CommandChunk]:
    """A simulated stream as commands.

    Args:
        catalog: schema ids for the frames.
        chunk_rows: rows of a chunk at most.
        first_row, last_row: the part of the stream, as places from 0; the last one is not in it.
        rate: commands a second; as fast as they are asked for where none is given. A slow consumer is not hurried
            afterwards by more than one slice.
        clock, sleep: seconds, for tests.

    Raises:
        ValueError: a rate that is not above zero.
    """
    encoder = ColumnEncoder(catalog)
    stop = simulation.table.num_rows if last_row is None else min(last_row, simulation.table.num_rows)
    for part, start in _paced(simulation.table, first_row, stop, chunk_rows, rate, clock, sleep):
        keys = pc.coalesce(part.column("source_wallet_id"), part.column("tx_id")).cast(pa.binary()).to_pylist()
        yield CommandChunk(encoder.encode(part), keys, start)


def _paced(
    table: pa.Table, first: int, stop: int, chunk_rows: int, rate: float | None, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[tuple[pa.Table, int]]:
    """Slices of the table with their first rows, at a rate."""
    if rate is not None and rate <= 0:
        raise ValueError(f"expected a rate above zero, found {rate}")
    step = chunk_rows if rate is None else max(1, min(chunk_rows, round(rate / _SLICES_PER_S)))
    due = clock()
    for start in range(first, stop, step):
        part = table.slice(start, min(step, stop - start))
        if rate is not None:
            wait = due - clock()
            if wait > 0:
                sleep(wait)
            due = max(due, clock() - step / rate) + part.num_rows / rate
        yield part, start


def write_stream(simulation: Simulation, path: Path) -> None:
    """Write the stream to .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz; the shipped mapping `tidemark` reads it back.

    Raises:
        ValueError: another ending.
    """
    table = simulation.table.drop_columns([name for name in simulation.table.column_names if name.startswith("origin.")])
    name = path.name.removesuffix(".gz")
    if path.name.endswith(".parquet"):
        pq.write_table(table, path, compression="zstd")
    elif name.endswith(".csv"):
        text = _as_text(table)
        with _open(path) as stream:
            pa_csv.write_csv(text, stream, pa_csv.WriteOptions(quoting_style="needed"))
    elif name.endswith(".jsonl"):
        with _open(path) as stream:
            for batch in _as_text(table).to_batches(max_chunksize=CHUNK_ROWS):
                stream.write("".join(json.dumps(row) + "\n" for row in batch.to_pylist()).encode())
    else:
        raise ValueError(f"expected .parquet, .csv, .csv.gz, .jsonl or .jsonl.gz, found {path.name!r}")


def write_truth(simulation: Simulation, labels_path: Path, schemes_path: Path) -> None:
    """Write the truth apart from the stream: labels as CSV (`tidemark_labels` reads them), schemes as JSON lines."""
    with labels_path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["wallet_id", "label"])
        rows.writerows(simulation.labels.items())
    with schemes_path.open("w", encoding="utf-8") as stream:
        for scheme in simulation.schemes:
            row = {
                "scheme_id": scheme.scheme_id, "typology": scheme.typology, "is_illicit": scheme.is_illicit,
                "wallet_ids": scheme.wallet_ids, "tx_ids": scheme.tx_ids,
                "first_occurred_at": scheme.first_occurred_at.isoformat(),
                "last_occurred_at": scheme.last_occurred_at.isoformat(),
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    # Without a time in the header, so that the same seed gives the same file.
    return gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) if path.name.endswith(".gz") else path.open("wb")


def _as_text(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_timestamp(column.type):
            column = pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
        columns[name] = column.cast(pa.string())
    return pa.table(columns)
