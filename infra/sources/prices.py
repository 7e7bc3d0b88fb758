"""Prices from files: one row an asset and time, as events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np

from domain.errors import InvalidValue
from domain.prices import AssetPriced
from domain.values import EPOCH, EXACT
from infra.sources.conversion import TextColumns
from infra.sources.mapping import PriceMapping
from infra.sources.raw_rows import RawRows
from infra.sources.readers import open_rows
from infra.sources.reading import CHUNK_ROWS, Progress, RejectedRow, Source, rejected_rows
from infra.sources.times import micros


@dataclass(frozen=True, slots=True)
class PriceChunk:
    """Some rows of a file of prices: the events in its order, and the rows refused."""

    events: list[AssetPriced]
    rejected: list[RejectedRow]
    progress: Progress


def read_prices(source: Source, mapping: PriceMapping, arrived_at: datetime | None = None) -> Iterator[PriceChunk]:
    """Read a file of prices in pieces.

    Args:
        source: a path, `-` or a binary stream.
        mapping: which column says what.
        arrived_at: for the check against the future; now, where none is given.

    Raises:
        UnreadableSource, WrongColumns, SourceCutShort: as `infra.sources.reading.read`.
    """
    reader = open_rows(source, lambda header: mapping.columns(), mapping.delimiter)
    for raw in reader.runs(CHUNK_ROWS):
        found = _run(raw, mapping, arrived_at or datetime.now(UTC))
        is_good = raw.problems.good()
        events = [event for event, good in zip(found, is_good.tolist(), strict=True) if good and event is not None]
        yield PriceChunk(events, rejected_rows(raw), Progress(raw.first_row + raw.count, reader.bytes_read, reader.size))


def _run(raw: RawRows, mapping: PriceMapping, arrived_at: datetime) -> list[AssetPriced | None]:
    texts = TextColumns(raw, mapping.null_texts, None, None)
    assets, quotes = texts.text(mapping.asset, "asset").to_pylist(), texts.text(mapping.quote_asset, "quote_asset").to_pylist()
    prices = texts.column(mapping.price).cast("string").to_pylist()
    column = texts.column(mapping.priced_at.column)
    at, is_bad, is_early = micros(column, mapping.priced_at)
    wrong = is_bad | is_early | np.asarray(column.is_null())
    raw.problems.add(wrong, "invalid_priced_at", lambda row: f"priced_at: expected a time, found {str(column[row].as_py())[:40]!r}")
    found: list[AssetPriced | None] = []
    for row, (asset, quote, price, micro) in enumerate(zip(assets, quotes, prices, at.tolist(), strict=True)):
        event = None
        if row not in raw.problems.by_row:
            try:
                event = AssetPriced(
                    asset or "", quote or "", _price(price), mapping.source, EPOCH + timedelta(microseconds=micro)
                )  # fmt: skip
                event.validate(arrived_at)
            except InvalidValue as error:
                raw.problems.by_row[row] = (f"invalid_{error.field}", str(error))
        found.append(event)
    return found


def _price(text: str | None) -> Decimal:
    try:
        return EXACT.create_decimal(text or "")
    except (InvalidOperation, ArithmeticError):
        raise InvalidValue("price", f"expected a number, found {str(text)[:40]!r}") from None
