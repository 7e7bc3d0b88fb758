"""Source rows become columns of `TransactionRecorded` as a mapping says; what cannot is noted with its reason."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.sources.errors import MappingError
from infra.sources.mapping import (
    FILE_FIELD,
    ROW_FIELD,
    AmountField,
    IdField,
    MoneyField,
    PaymentFields,
    TextField,
    TransactionMapping,
)
from infra.sources.numbers import NumberFault, decimal_array, floats, scaled_integers
from infra.sources.pseudonyms import Pseudonyms
from infra.sources.raw_rows import Problems, RawRows
from infra.sources.rules import check_transactions
from infra.sources.times import micros

AMOUNT_SCALE = 18
_TIME = pa.timestamp("us", tz="UTC")


class TextColumns:
    """Text of one run of rows as fields ask for it: joined, folded, translated, made a pseudonym."""

    def __init__(self, raw: RawRows, null_texts: list[str], file: str | None, pseudonyms: Pseudonyms | None) -> None:
        self.raw, self._file, self._pseudonyms = raw, file, pseudonyms
        self._nulls = pa.array(["", *null_texts], pa.string())
        self._columns: dict[str, pa.Array] = {}

    def column(self, name: str) -> pa.Array:
        """A source column with null texts as null."""
        if name not in self._columns:
            found = self.raw.columns[name]
            if not pa.types.is_timestamp(found.type):
                found = found.cast(pa.string())
                is_null = pc.is_in(found, value_set=self._nulls)
                if pc.any(is_null).as_py():
                    found = pc.if_else(is_null, pa.scalar(None, pa.string()), found)
            self._columns[name] = found
        return self._columns[name]

    def text(self, field: TextField, name: str) -> pa.Array:
        """A field's text [n]; a value that it does not translate is noted as a problem and null."""
        n = self.raw.count
        if field.constant is not None:
            found = pa.repeat(field.constant, n)
        else:
            parts = [self._part(part, is_column) for part, is_column in field.parts()]
            found = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "", null_handling="emit_null")
            if not isinstance(found, pa.Array):
                found = pa.repeat(found.as_py(), n)
        if field.values is not None:
            found = self._translated(found, field, name)
        if field.fold != "keep":
            found = pc.utf8_lower(found) if field.fold == "lower" else pc.utf8_upper(found)
        if field.pseudonym is not None:
            assert self._pseudonyms is not None
            found = self._pseudonyms.column(field.pseudonym, found)
        return found

    def identifier(self, field: IdField | None, network: pa.Array | str | None, name: str) -> pa.Array:
        """An id with its network [n] before it unless it is full; all null without a field."""
        if field is None:
            return pa.nulls(self.raw.count, pa.string())
        found = self.text(field, name)
        if field.is_full:
            return found
        return pc.binary_join_element_wise(network, found, ":", null_handling="emit_null")

    def _part(self, part: str, is_column: bool) -> pa.Array | pa.Scalar:
        if not is_column:
            return pa.scalar(part)
        if part == FILE_FIELD:
            return pa.scalar(self._file, pa.string())
        if part == ROW_FIELD:
            return pa.array(np.arange(self.raw.first_row, self.raw.first_row + self.raw.count)).cast(pa.string())
        return self.column(part).cast(pa.string())

    def _translated(self, found: pa.Array, field: TextField, name: str) -> pa.Array:
        assert field.values is not None
        places = pc.index_in(found, value_set=pa.array(list(field.values), pa.string()))
        translated = pa.array(list(field.values.values()), pa.string()).take(places)
        if field.otherwise is not None:
            return pc.fill_null(translated, field.otherwise)
        unknown = np.asarray(translated.is_null())
        self.raw.problems.add(
            unknown, f"invalid_{name}", lambda row: f"{name}: expected one of {sorted(field.values or {})}, "
            f"found {_shown(found, row)}",
        )  # fmt: skip
        return translated


class TransactionConverter:
    """Turns source rows into transactions.

    Args:
        mapping: what becomes of which column.
        source: how the operator calls the source.
        ingest_id: the run that brings it in.
        file: hex digits of the file's content, for mappings that make ids from it.
        pseudonyms: for mappings that make some.

    Raises:
        MappingError: the mapping needs a file or a key that is not given.
    """

    def __init__(self, mapping: TransactionMapping, source: str, ingest_id: str, file: str | None, pseudonyms: Pseudonyms | None) -> None:
        if mapping.needs_file and file is None:
            mistake = "its ids are made from the file's content, so it cannot read a stream"
            raise MappingError(mapping.title, {"transaction_id": mistake})
        if mapping.needs_key and pseudonyms is None:
            raise MappingError(mapping.title, {"pseudonym": "expected a secret key for pseudonyms, found none"})
        self.mapping = mapping
        self._origin = {"origin.source": source, "origin.mapping": mapping.title, "origin.ingest_id": ingest_id}
        self._file, self._pseudonyms = file, pseudonyms

    def convert(self, raw: RawRows, arrived_at: datetime | None) -> pa.Table:
        """All rows [n] as columns of the flattened schema; `raw.problems` tells which of them must not be used.

        Args:
            raw: source rows; their problems grow.
            arrived_at: for the check against the future, none to leave it out.
        """
        mapping, n = self.mapping, raw.count
        texts = TextColumns(raw, mapping.null_texts, self._file, self._pseudonyms)
        network = texts.text(
            mapping.network if isinstance(mapping.network, TextField) else TextField(constant=mapping.network),
            "network",
        )
        columns: dict[str, pa.Array] = {
            "tx_id": texts.identifier(mapping.transaction_id, network, "tx_id"),
            "network": network,
            "kind": texts.text(mapping.kind, "kind"),
            "status": texts.text(mapping.status, "status"),
            "source_wallet_id": texts.identifier(mapping.source_wallet, network, "source_wallet_id"),
            "target_wallet_id": texts.identifier(mapping.target_wallet, network, "target_wallet_id"),
            "amount": self._amount(texts, mapping.amount, "amount"),
            "asset": texts.text(mapping.asset, "asset"),
            "occurred_at": self._time(texts),
        }
        for name, asset_name, money in (
            ("counter_amount", "counter_asset", mapping.counter), ("fee", "fee_asset", mapping.fee),
        ):  # fmt: skip
            if money is not None:
                columns[name], columns[asset_name] = self._money(texts, money, name, columns["asset"])
        if mapping.block is not None:
            columns["block"] = self._block(texts, mapping.block)
        if mapping.payment is not None:
            for name in PaymentFields.model_fields:
                field = getattr(mapping.payment, name)
                if field is not None:
                    columns[f"payment.{name}"] = texts.text(field, name)
        columns.update(self._features(texts))
        columns.update({name: pa.repeat(value, n) for name, value in self._origin.items()})
        columns["origin.row"] = pa.array(np.arange(raw.first_row, raw.first_row + n))
        table = pa.table(columns)
        check_transactions(table, raw.problems, arrived_at)
        return table

    def _amount(self, texts: TextColumns, field: AmountField, name: str) -> pa.Array:
        column = texts.column(field.column).cast(pa.string())
        words, faults = scaled_integers(column, AMOUNT_SCALE + field.power)
        if faults.any():
            _note_faults(texts.raw.problems, column, faults, name)
        return decimal_array(words, np.asarray(column.is_valid()) & (faults == 0))

    def _money(self, texts: TextColumns, money: MoneyField, name: str, main_asset: pa.Array) -> tuple[pa.Array, pa.Array]:
        amount, asset = self._amount(texts, money.amount, name), texts.text(money.asset, f"{name}_asset")
        if money.only_if_asset_differs:
            differs = pc.fill_null(pc.not_equal(asset, main_asset), True)
            amount = pc.if_else(differs, amount, pa.scalar(None, amount.type))
            asset = pc.if_else(differs, asset, pa.scalar(None, pa.string()))
        return amount, asset

    def _time(self, texts: TextColumns) -> pa.Array:
        field = self.mapping.occurred_at
        column = texts.column(field.column)
        found, is_bad, is_early = micros(column, field)
        problems = texts.raw.problems
        if column.null_count:
            problems.add(np.asarray(column.is_null()), "missing_occurred_at", "occurred_at: expected a time, found none")
        problems.add(is_early, "invalid_occurred_at", lambda row: f"expected 1970 or later, found {_shown(column, row)}")
        problems.add(is_bad, "invalid_occurred_at", lambda row: f"expected a time as {field.format}, found {_shown(column, row)}")
        return pa.array(np.where(is_bad | is_early, 0, found)).cast(_TIME)

    def _block(self, texts: TextColumns, name: str) -> pa.Array:
        column = texts.column(name).cast(pa.string())
        words, faults = scaled_integers(column, 0)
        faults = np.where((faults == 0) & ((words[:, 1] != 0) | (words[:, 0] >> 63 != 0)), NumberFault.TOO_LARGE, faults).astype(np.uint8)
        if faults.any():
            _note_faults(texts.raw.problems, column, faults, "block")
        return pa.array(words[:, 0].view(np.int64), mask=np.asarray(column.is_null()) | (faults != 0))

    def _features(self, texts: TextColumns) -> dict[str, pa.Array]:
        columns = {}
        for number, name in enumerate(self.mapping.feature_columns(), 1):
            column = texts.column(name).cast(pa.string())
            if column.null_count:
                problem = f"card_features.v{number}: expected a number, found none"
                texts.raw.problems.add(np.asarray(column.is_null()), "missing_card_features", problem)
            values, is_bad = floats(column)
            texts.raw.problems.add(is_bad, "invalid_card_features", f"card_features.v{number}: expected a finite number")
            columns[f"card_features.v{number}"] = values
        return columns


def _note_faults(problems: Problems, column: pa.Array, faults: npt.NDArray[np.uint8], name: str) -> None:
    problems.add(
        faults != 0, f"invalid_{name}",
        lambda row: f"{name}: expected {NumberFault(int(faults[row])).expected}, found {_shown(column, row)}",
    )  # fmt: skip


def _shown(column: pa.Array, row: int) -> str:
    return repr(str(column[row].as_py())[:60])
