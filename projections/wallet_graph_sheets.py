"""The sheets of an import of the wallet graph: which column becomes which property of which type, and how a cell is written.

Cells follow Neo4j's CSV: every value in quotes, a quote doubled, nothing between two commas for no value. A text may hold anything, line
ends too: the files that do are named to the tool, which reads the others faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from projections.wallet_graph_statements import UNIT

CAPTION_ASSET: Final = 12  # characters of the asset in a flow's caption, as `left(row.asset, 12)` of the statement
_CENT: Final = Decimal("0.01")
_SMALLEST_SHOWN: Final = UNIT // 100
_PLAIN_BELOW: Final = 1e7  # from here on Java writes a double with an exponent


@dataclass(frozen=True, slots=True)
class Column:
    """A cell of each row: the frame's column, its heading for the tool, and how it becomes text."""

    name: str
    heading: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Plan:
    """A kind of node or relationship. `label` is its label or type; of a wallet each row says its own."""

    file: str
    is_node: bool
    label: str
    columns: tuple[Column, ...]


@dataclass(slots=True)
class Sheet:
    """A file of an import. `is_multiline`: some text in it holds a line end."""

    plan: Plan
    path: Path
    rows: int = 0
    is_multiline: bool = False


def _columns(**headings: str) -> tuple[Column, ...]:
    """Headings by column of the frame; the type behind the colon says how a cell is written."""
    kinds = {"long": "long", "double": "double", "boolean": "boolean", "datetime": "time", "float[]": "vector"}
    return tuple(Column(name, heading, kinds.get(heading.rpartition(":")[2], "text")) for name, heading in headings.items())


def _same(names: str, kind: str = "") -> dict[str, str]:
    return {name: f"{name}:{kind}" if kind else name for name in names.split()}


_PLACE: Final = {"_topic": "topic", "_partition": "partition:long", "_offset": "offset:long"}
_SCORE: Final = {
    **_same("score source_score target_score", "double"), "score_seq": "score_seq:long", "model_version": "model_version",
    "score_topic": "score_topic", "score_partition": "score_partition:long", "score_offset": "score_offset:long",
}  # fmt: skip
_BETWEEN: Final = {"source_wallet_id": ":START_ID(wallet)", "target_wallet_id": ":END_ID(wallet)"}
_TO_WALLET: Final = {"case_id": ":START_ID(alert)", "wallet_id": ":END_ID(wallet)"}

WALLETS: Final = Plan("wallets", True, "", _columns(
    wallet_id="wallet_id:ID(wallet)", **_same("network caption"), degree="degree:long",
    **_same("kind name country described_by label label_source"), is_frozen="is_frozen:boolean", freeze_reason="freeze_reason",
    last_score="last_score:double", **_same("last_score_seq embedding_seq", "long"), embedding_model="embedding_model",
    vector="embedding:float[]", labels=":LABEL",
))  # fmt: skip
ALERTS: Final = Plan("alerts", True, "Alert", _columns(
    case_id="case_id:ID(alert)", reason="reason", **_same("score threshold", "double"), tx_id="tx_id", tx_seq="tx_seq:long",
    **_same("explanation model_version"), known_at="known_at:datetime", **_same("status assignee verdict verdict_reason"), **_PLACE,
))  # fmt: skip
UNPLACED: Final = Plan("unplaced", True, "UnplacedScore", _columns(tx_id="tx_id:ID(score)", **_SCORE))
CHECKPOINTS: Final = Plan("checkpoints", True, "Checkpoint", _columns(
    **_same("projection topic"), **_same("partition next_offset", "long"),
))  # fmt: skip
SENT: Final = Plan("sent", False, "SENT", _columns(
    **_BETWEEN, tx_id="tx_id", seq="seq:long", amount="amount", amount_float="amount_float:double", **_same("asset status kind"),
    occurred_at="occurred_at:datetime", **_PLACE, **_SCORE,
))  # fmt: skip
VOIDED: Final = Plan("voided", False, "VOIDED", (
    *SENT.columns, *_columns(void_seq="void_seq:long", void_reason="void_reason", voided_at="voided_at:datetime"),
))  # fmt: skip
VOIDS: Final = Plan("voids", True, "Void", _columns(
    tx_id="tx_id", seq="seq:long", **_same("reason replaced_by"), known_at="known_at:datetime", **_PLACE,
))  # fmt: skip
FLOWS: Final = Plan("flows", False, "FLOW", _columns(
    **_BETWEEN, asset="asset", transactions="transactions:long", high="sum_high:long", whole="sum_whole:long", parts="sum_parts:long",
    amount_float="amount_float:double", caption="caption", first_at="first_at:datetime", last_at="last_at:datetime",
))  # fmt: skip
ALERTS_ON: Final = Plan("alerts-on", False, "ALERTS_ON", _columns(**_TO_WALLET))
JOINED: Final = Plan("joined", False, "JOINED", _columns(
    **_TO_WALLET, tx_id="tx_id", tx_seq="tx_seq:long", score="score:double", known_at="known_at:datetime", **_PLACE,
))  # fmt: skip


@dataclass(slots=True)
class SheetWriter:
    """Writes sheets into a folder; a sheet without rows has no file."""

    folder: Path
    sheets: list[Sheet] = field(default_factory=list)
    _open: dict[str, tuple[Sheet, pa.NativeFile, pa_csv.CSVWriter]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for _, file, writer in self._open.values():
            writer.close()
            file.close()
        self._open.clear()

    def write(self, plan: Plan, found: pl.DataFrame) -> None:
        """Append rows. A column that the frame lacks is empty.

        Raises:
            OSError: the disk may be full.
        """
        if not found.height:
            return
        cells = [_cells(found, column) for column in plan.columns]
        table = pa.table(cells, names=[column.name for column in plan.columns])
        if plan.file not in self._open:
            self._begin(plan, table.schema)
        sheet, _, writer = self._open[plan.file]
        writer.write_table(table)
        sheet.rows += table.num_rows
        texts = (cell for cell, column in zip(cells, plan.columns, strict=True) if column.kind == "text")
        sheet.is_multiline |= any(pc.any(pc.match_substring_regex(text, "[\r\n]")).as_py() or False for text in texts)

    def _begin(self, plan: Plan, schema: pa.Schema) -> None:
        sheet = Sheet(plan, self.folder / f"{plan.file}.csv")
        file = pa.OSFile(str(sheet.path), "wb")
        file.write((",".join(column.heading for column in plan.columns) + "\n").encode())
        writer = pa_csv.CSVWriter(file, schema, write_options=pa_csv.WriteOptions(include_header=False, quoting_style="all_valid"))
        self._open[plan.file] = (sheet, file, writer)
        # Nodes first: that is the order in which the tool wants to be told.
        self.sheets = sorted([*self.sheets, sheet], key=lambda sheet: not sheet.plan.is_node)


def flow_captions(flows: pl.DataFrame) -> list[str]:
    """What stands at a flow's arrow, as the statement says it: the sum with at most two decimals, and the asset."""
    columns = (flows[name].to_list() for name in ("high", "whole", "parts", "amount_float", "asset"))
    return [
        f"{_rounded(amount) if high or whole or parts >= _SMALLEST_SHOWN else '<0.01'} {asset[:CAPTION_ASSET]}"
        for high, whole, parts, amount, asset in zip(*columns, strict=True)
    ]


def _rounded(amount: float) -> str:
    """`toString(round(amount, 2))` of Cypher: half up on the shortest decimal that is this double, written as Java does."""
    text = repr(amount)
    if amount >= _PLAIN_BELOW or len(text) - text.find(".") > 3:
        rounded = float(Decimal(text).quantize(_CENT, ROUND_HALF_UP)) if amount < 1e15 else amount
        if rounded < _PLAIN_BELOW:
            return repr(rounded)
        _, digits, exponent = Decimal(repr(rounded)).normalize().as_tuple()
        first, rest = digits[0], "".join(map(str, digits[1:])) or "0"
        return f"{first}.{rest}E{len(digits) - 1 + int(exponent)}"
    return text


def _cells(found: pl.DataFrame, column: Column) -> pa.Array:
    if column.name == "caption" and "high" in found.columns:
        return pa.array(flow_captions(found), pa.string())
    if column.name not in found.columns:
        return pa.nulls(found.height, pa.string())
    series = found[column.name]
    if column.kind == "time":
        return _text(series.dt.cast_time_unit("us").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"))
    if column.kind == "vector":
        return _vectors(series)
    if column.kind == "double":
        special: Mapping[str, str] = {"inf": "Infinity", "-inf": "-Infinity"}
        return _text(series.cast(pl.Float64).cast(pl.String).replace(special))
    if column.kind in ("long", "boolean"):
        return _text(series.cast(pl.String))
    return _text(series)


def _text(series: pl.Series) -> pa.Array:
    found = series.cast(pl.String).to_arrow().cast(pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _vectors(series: pl.Series) -> pa.Array:
    """Float32 bytes as numbers between semicolons, the shortest text that is read back as the same float32."""
    lists = series.to_list()
    flat = b"".join(vector for vector in lists if vector is not None)
    values = pa.array(np.frombuffer(flat, "<f4")).cast(pa.string())
    ends = np.cumsum([0] + [len(vector) // 4 if vector is not None else 0 for vector in lists])
    mask = pa.array([vector is None for vector in lists])
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=mask), ";")
