"""The rules of `TransactionRecorded.validate` over whole columns, and the bounds on text that enters from outside.

A row that passes here passes there; the other way round, only text longer than `MAX_TEXT_LENGTH` differs.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domain.events import TransactionKind, TransactionStatus
from domain.values import EPOCH, MAX_AHEAD, MAX_ID_LENGTH, MAX_TEXT_LENGTH
from infra.sources.raw_rows import Problems

CONTROL = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"
_KINDS = pa.array([kind.value for kind in TransactionKind if kind is not TransactionKind.UNKNOWN])
_STATUSES = pa.array([status.value for status in TransactionStatus if status is not TransactionStatus.UNKNOWN])
_TEXTS = tuple(f"payment.{name}" for name in ("merchant_category", "location", "country", "payment_method", "device_id"))


def check_transactions(table: pa.Table, problems: Problems, arrived_at: datetime | None) -> None:
    """Note the first rule that each row breaks.

    Args:
        table: columns of the flattened schema; a nullable one may be absent.
        problems: where to note; rows that have a problem are not looked at again.
        arrived_at: the check against the future, none to leave it out.
    """
    network = _column(table, "network")
    _identifier(table, "network", problems, r"^[a-z0-9][a-z0-9_-]{0,31}$")
    _prefixed_id(table, "tx_id", network, problems, is_needed=True)
    _member(table, "kind", _KINDS, problems)
    _member(table, "status", _STATUSES, problems)
    _prefixed_id(table, "source_wallet_id", network, problems)
    _prefixed_id(table, "target_wallet_id", network, problems)
    _amount(table, "amount", problems, is_needed=True)
    _id(table, "asset", problems, is_needed=True)
    for amount, asset in (("counter_amount", "counter_asset"), ("fee", "fee_asset")):
        if amount in table.column_names or asset in table.column_names:
            halves = np.asarray(_column(table, amount).is_null()) != np.asarray(_column(table, asset).is_null())
            problems.add(halves, f"invalid_{asset}", "expected an amount and its asset together, found one of them")
            _amount(table, amount, problems)
            _id(table, asset, problems)
    _time(table, problems, arrived_at)
    block = _column(table, "block")
    if block.null_count < len(block):
        negative = _true(pc.less(block, 0))
        problems.add(negative, "invalid_block", lambda row: f"expected zero or more, found {block[row]}")
    if "personal" in table.column_names:
        message = "expected nothing: sealing is not built, so nothing personal may be stored"
        problems.add(np.asarray(_column(table, "personal").is_valid()), "invalid_personal", message)
    for name in _TEXTS:
        if name in table.column_names:
            _too_long(_column(table, name), name, problems, MAX_TEXT_LENGTH)


def check_wallet_ids(column: pa.Array, problems: Problems) -> None:
    """Note where a wallet id [n] of a label is missing or breaks the rules of an id; its network is the mapping's."""
    _id(pa.table({"wallet_id": column}), "wallet_id", problems, is_needed=True)


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(table.num_rows)
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _true(flags: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(flags, False)).astype(np.bool_, copy=False)


def _needed(column: pa.Array, name: str, problems: Problems) -> None:
    if column.null_count:
        problems.add(np.asarray(column.is_null()), f"missing_{name}", f"{name}: expected a value, found none")


def _identifier(table: pa.Table, name: str, problems: Problems, pattern: str) -> None:
    column = _column(table, name)
    _needed(column, name, problems)
    distinct = column.dictionary_encode()
    fits = pc.match_substring_regex(distinct.dictionary, pattern).take(distinct.indices)
    # RE2's $ is the end of the text alone, unlike Python's.
    problems.add(_true(pc.invert(fits)), f"invalid_{name}", lambda row: f"{name}: found {_shown(column, row)}")


def _member(table: pa.Table, name: str, known: pa.Array, problems: Problems) -> None:
    column = _column(table, name)
    _needed(column, name, problems)
    outside = pc.invert(pc.is_in(column, value_set=known))
    problems.add(
        _true(outside),
        f"invalid_{name}",
        lambda row: f"expected one of {known.to_pylist()}, found {_shown(column, row)}",
    )


def _id(table: pa.Table, name: str, problems: Problems, is_needed: bool = False) -> pa.Array:
    column = _column(table, name)
    if is_needed:
        _needed(column, name, problems)
    if column.null_count == len(column):
        return column
    _too_long(column, name, problems, MAX_ID_LENGTH)
    empty = _true(pc.equal(pc.binary_length(column), 0))
    problems.add(empty, f"invalid_{name}", f"{name}: expected 1 to {MAX_ID_LENGTH} characters, found 0")
    control = _true(pc.match_substring_regex(column, CONTROL))
    problems.add(control, f"invalid_{name}", lambda row: f"{name}: expected no control characters, found {_shown(column, row)}")
    return column


def _prefixed_id(table: pa.Table, name: str, network: pa.Array, problems: Problems, is_needed: bool = False) -> None:
    column = _id(table, name, problems, is_needed)
    if column.null_count == len(column):
        return
    is_prefixed = np.zeros(len(column), np.bool_)
    for one in pc.unique(network).drop_null().to_pylist():
        prefix = f"{one}:"
        longer = pc.greater(pc.binary_length(column), len(prefix.encode()))
        own = pc.and_(pc.starts_with(column, prefix), pc.and_(longer, pc.equal(network, one)))
        is_prefixed |= _true(own)
    wrong = ~is_prefixed & np.asarray(column.is_valid()) & np.asarray(network.is_valid())
    problems.add(wrong, f"invalid_{name}", lambda row: f"{name}: expected {network[row]}:<id>, found {_shown(column, row)}")


def _too_long(column: pa.Array, name: str, problems: Problems, limit: int) -> None:
    sizes = pc.binary_length(column)
    longest = pc.max(sizes).as_py()
    if longest is None or longest <= limit:  # bytes are at least as many as characters
        return
    lengths = pc.utf8_length(column)
    problems.add(
        _true(pc.greater(lengths, limit)), f"invalid_{name}",
        lambda row: f"{name}: expected at most {limit} characters, found {lengths[row]}",
    )  # fmt: skip


def _amount(table: pa.Table, name: str, problems: Problems, is_needed: bool = False) -> None:
    column = _column(table, name)
    if is_needed:
        _needed(column, name, problems)
    if column.null_count == len(column):
        return
    words = np.frombuffer(column.buffers()[1], np.int64)[2 * column.offset : 2 * (column.offset + len(column))]
    negative = (words[1::2] < 0) & np.asarray(column.is_valid())
    problems.add(negative, f"invalid_{name}", f"{name}: expected zero or more, found a negative number")


def _time(table: pa.Table, problems: Problems, arrived_at: datetime | None) -> None:
    column = _column(table, "occurred_at")
    _needed(column, "occurred_at", problems)
    numbers = np.array(pc.fill_null(column.cast(pa.int64()), 0))
    problems.add(numbers < 0, "invalid_occurred_at", lambda row: f"expected 1970 or later, found {column[row]}")
    if arrived_at is not None:
        last = (arrived_at + MAX_AHEAD - EPOCH) // (datetime.resolution)
        problems.add(
            numbers > last, "invalid_occurred_at",
            lambda row: f"expected a time not after its arrival, found {column[row]}",
        )  # fmt: skip


def _shown(column: pa.Array, row: int) -> str:
    return repr(str(column[row].as_py())[:40])
