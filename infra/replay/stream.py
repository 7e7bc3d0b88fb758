"""The stream that is replayed: history without what was taken back, as many times as asked for, with schemes planted in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WALLETS = ("source_wallet_id", "target_wallet_id")


def copy_name(name: str, copy: int) -> str:
    """What a wallet or a transaction is called in a copy of the population; the first copy is the original."""
    return name if copy == 1 else f"{name}~{copy}"


def scaled(table: pa.Table, copies: int) -> pa.Table:
    """Each transaction once for every copy of the population, one after the other: `copies` times the load, the same graph in each."""
    if copies == 1:
        return table
    parts = [table, *(_copy(table, copy) for copy in range(2, copies + 1))]
    order = np.arange(copies * table.num_rows).reshape(copies, table.num_rows).T.ravel()
    return pa.concat_tables(parts).take(pa.array(order))


def _copy(table: pa.Table, copy: int) -> pa.Table:
    for name in ("tx_id", *_WALLETS):
        renamed = pc.binary_join_element_wise(table[name].cast(pa.string()), f"~{copy}", "")
        table = table.set_column(table.schema.get_field_index(name), name, renamed)
    return table


def with_planted(history: Iterable[pa.Table], planted: pa.Table) -> Iterator[pa.Table]:
    """History with planted transactions, each before the first of history that is later than it.

    Args:
        history: tables in order of seq, whose times may go back.
        planted: in order of time; columns that it has not are null.
    """
    times = planted["occurred_at"].cast(pa.int64()).to_numpy() if planted.num_rows else np.zeros(0, np.int64)
    done, latest = 0, np.iinfo(np.int64).min
    kept: list[str] = []
    for table in history:
        kept = [name for name in planted.column_names if name in table.column_names]
        if done == len(times):
            yield table
            continue
        reached = np.maximum.accumulate(np.append(latest, table["occurred_at"].cast(pa.int64()).to_numpy()))[1:]
        latest = int(reached[-1]) if len(reached) else latest
        due = int(np.searchsorted(times, latest, side="left")) if len(reached) else done
        if due > done:
            places = np.searchsorted(reached, times[done:due], side="right")
            order = np.insert(np.arange(table.num_rows), places, table.num_rows + np.arange(due - done))
            both = pa.concat_tables([table, planted.slice(done, due - done).select(kept)], promote_options="default")
            table, done = both.take(pa.array(order)), due
        yield table
    if done < len(times):
        yield planted.slice(done).select(kept) if kept else planted.slice(done)
