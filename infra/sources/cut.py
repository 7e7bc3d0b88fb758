"""The one cut in time that the demo and the evaluation share: what may be learned from, and what is judged.

With labels of wallets: labelled wallets in order of their first transaction, the first 80 % train, and the cut T is the
row at which the first of the others appears. Else T stands at 80 % of the rows in order of time. The same rule again,
within what trains, gives the validation cut V.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domain.values import EPOCH
from infra.sources.errors import UnreadableSource
from infra.sources.mapping import TransactionMapping
from infra.sources.reading import Source, converted

TRAINING_SHARE = 0.8
_NEVER = np.iinfo(np.int64).max
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a source is cut. Rows count from 0 in file order; row `row` is the first one after the cut.

    `is_sorted` says whether the file is in order of time; where not, rows count the accepted ones in order of time, as
    `read_in_time_order` does. `training` and `test` map wallet ids, or tx_ids where `labels_are_of` is "transactions",
    to labels in order of first appearance; `validation` is the later part of `training`, from `validation_row` on.
    Labelled wallets without a transaction are in none of them.
    """

    rows: int
    row: int
    occurred_at: datetime
    validation_row: int
    is_sorted: bool
    labels_are_of: str
    training: dict[str, str] = field(repr=False)
    validation: dict[str, str] = field(repr=False)
    test: dict[str, str] = field(repr=False)


def cut_of(
    source: Source,
    mapping: TransactionMapping,
    wallet_labels: Mapping[str, str] | None = None,
    *,
    by: Literal["wallets", "rows"] = "wallets",
    key: bytes | None = None,
) -> Cut:
    """Where to cut a source; reads it once, in columns.

    Args:
        source: a path; a stream cannot be read twice, so it has no cut.
        mapping: what becomes of which column.
        wallet_labels: wallet id → label, as `LabelFile.by_wallet` gives them.
        by: "wallets" cuts where the first wallet of the last 20 % of the labelled ones appears; "rows" at 80 % of the
            rows, and wallets that appear later are judged. Without labels of wallets always the rows.
        key: 16 to 64 secret bytes, where the mapping makes pseudonyms.

    Raises:
        UnreadableSource: no row is accepted.
        SourceError: as `read`.
    """
    names = list(wallet_labels) if wallet_labels else []
    first_row = np.full((2, len(names)), _NEVER, np.int64)  # by side: a row's source appears before its target
    value_set = pa.array(names, pa.string())
    times: list[_Ints] = []
    rows_of: list[_Ints] = []
    tx_ids: list[pa.Array] = []
    labels: list[str | None] = []
    wallets: list[tuple[_Ints, _Ints]] = []
    label = mapping.label if not names else None
    total = 0
    for run in converted(source, mapping, ingest_id="cut", key=key, with_labels=label is not None):
        good = np.flatnonzero(run.raw.problems.good())
        total += run.raw.count
        table = run.table.take(pa.array(good)) if len(good) < run.raw.count else run.table
        times.append(np.array(table.column("occurred_at").cast(pa.int64())))
        rows_of.append(good + run.raw.first_row)
        if names:
            sides = [_places(table.column(side), value_set) for side in ("source_wallet_id", "target_wallet_id")]
            wallets.append((sides[0], sides[1]))
        elif label is not None:
            tx_ids.append(table.column("tx_id").combine_chunks())
            truth = run.raw.columns[label.column].cast(pa.string()).take(pa.array(good)).to_pylist()
            labels += [None if (known := label.label(value)) is None else known.value for value in truth]
    micros = np.concatenate(times) if times else np.zeros(0, np.int64)
    if not len(micros):
        raise UnreadableSource(f"{source}: expected at least one transaction to cut, found none among {total} rows")
    is_sorted = bool((np.diff(micros) >= 0).all())
    order = np.arange(len(micros)) if is_sorted else np.argsort(micros, kind="stable")
    # The place of each accepted row: its own in a sorted file, its rank by time in any other.
    place = np.concatenate(rows_of) if is_sorted else np.empty(len(micros), np.int64)
    if not is_sorted:
        place[order] = np.arange(len(micros))
    if names and wallet_labels is not None:
        for side in (0, 1):
            found = np.concatenate([pair[side] for pair in wallets])
            seen = found >= 0
            np.minimum.at(first_row[side], found[seen], place[seen])
        return _by_wallets(names, wallet_labels, first_row, micros, place, total, is_sorted, by)
    return _by_rows(micros, order, place, total, is_sorted, tx_ids, labels)


def _places(column: pa.ChunkedArray, value_set: pa.Array) -> _Ints:
    return np.array(pc.fill_null(pc.index_in(column, value_set=value_set), -1)).astype(np.int64)


def _by_wallets(
    names: list[str], labels: Mapping[str, str], first_row: _Ints, micros: _Ints, place: _Ints, total: int,
    is_sorted: bool, by: str,
) -> Cut:  # fmt: skip
    key = np.minimum(
        np.where(first_row[0] == _NEVER, _NEVER, 2 * first_row[0]),
        np.where(first_row[1] == _NEVER, _NEVER, 2 * first_row[1] + 1),
    )
    appearing = [int(i) for i in np.argsort(key, kind="stable") if key[i] != _NEVER]
    rows = total if is_sorted else len(micros)

    def split(part: list[int], last_row: int) -> tuple[list[int], list[int], int]:
        if by == "rows":
            row = int(TRAINING_SHARE * last_row)
            count = sum(int(key[i] // 2) < row for i in part)
            return part[:count], part[count:], row
        count = int(TRAINING_SHARE * len(part))
        after = part[count:]
        return part[:count], after, int(key[after[0]] // 2) if after else last_row

    training, test, row = split(appearing, rows)
    _, validation, validation_row = split(training, row)
    return Cut(
        rows, row, _time_at(micros, place, row), validation_row, is_sorted, "wallets",
        *({names[i]: labels[names[i]] for i in part} for part in (training, validation, test)),
    )  # fmt: skip


def _by_rows(
    micros: _Ints,
    order: _Ints,
    place: _Ints,
    total: int,
    is_sorted: bool,
    tx_ids: list[pa.Array],
    labels: list[str | None],
) -> Cut:
    rows = total if is_sorted else len(micros)
    row = int(TRAINING_SHARE * rows)
    validation_row = int(TRAINING_SHARE * row)
    parts: tuple[dict[str, str], ...] = ({}, {}, {})
    if tx_ids:
        names = pa.concat_arrays(tx_ids).to_pylist()
        for i in order.tolist():
            label = labels[i]
            if label is None:
                continue
            parts[0 if place[i] < row else 2][names[i]] = label
            if validation_row <= place[i] < row:
                parts[1][names[i]] = label
    kind = "transactions" if tx_ids else "nothing"
    return Cut(rows, row, _time_at(micros, place, row), validation_row, is_sorted, kind, *parts)


def _time_at(micros: _Ints, place: _Ints, row: int) -> datetime:
    """The time of the first accepted row at or after `row`, of the last one where there is none."""
    after = micros[place >= row]
    found = int(after.min()) if len(after) else int(micros.max())
    return (EPOCH + timedelta(microseconds=found)).astimezone(UTC)
