"""What a row must be to enter the warehouse, once, as data: screened in columns here, checked as expectations later.

The log is validated where commands enter; these rules are the second lock, for what reaches the log by another road.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from domain.events import AlertReason, Label, TransactionKind, TransactionStatus, Verdict, WalletKind
from domain.storefront import StorefrontEventKind
from domain.values import EPOCH, MAX_AHEAD
from projections.protocol import EventBatch, Rejection
from schema_registry.column_codec import DECIMAL, TIME

_FLOAT_BYTES = 4
_MICROS_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class NotNull:
    """The column has a value, and text is not empty."""

    event_type: str
    column: str
    reason: str = "missing_value"

    def broken(self, events: pa.Table) -> pa.Array:
        column = events[self.column]
        if pa.types.is_string(column.type):
            return pc.less(pc.fill_null(pc.binary_length(column), 0), 1)
        return column.is_null()

    def sentence(self) -> str:
        return f"expected a value in {self.column}, found none"


@dataclass(frozen=True, slots=True)
class NotNegative:
    """An amount, where there is one, is zero or more."""

    event_type: str
    column: str
    reason: str = "negative_amount"

    def broken(self, events: pa.Table) -> pa.Array:
        return pc.fill_null(pc.less(events[self.column], pa.scalar(Decimal(0), DECIMAL)), False)

    def sentence(self) -> str:
        return f"expected zero or more in {self.column}, found a negative number"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is of a closed set."""

    event_type: str
    column: str
    known: tuple[str, ...]
    reason: str = "unknown_value"

    def broken(self, events: pa.Table) -> pa.Array:
        return pc.invert(pc.is_in(events[self.column], pa.array(self.known)))

    def sentence(self) -> str:
        return f"expected one of {', '.join(self.known)} in {self.column}, found another"


@dataclass(frozen=True, slots=True)
class InUnitInterval:
    """A score, where there is one, lies in [0, 1]; NaN does not."""

    event_type: str
    column: str
    reason: str = "score_out_of_range"

    def broken(self, events: pa.Table) -> pa.Array:
        column = events[self.column]
        inside = pc.and_(pc.greater_equal(column, 0.0), pc.less_equal(column, 1.0))
        return pc.invert(pc.fill_null(inside, True))

    def sentence(self) -> str:
        return f"expected a number in [0, 1] in {self.column}, found another"


@dataclass(frozen=True, slots=True)
class InTime:
    """A time from 1970 on and not more than a day after the record was appended (no bound where Kafka gave no time)."""

    event_type: str
    column: str
    reason: str = "time_out_of_range"

    def broken(self, events: pa.Table) -> pa.Array:
        times = events[self.column]
        too_early = pc.less(times, pa.scalar(EPOCH, TIME))
        arrived_ms = events["_timestamp_ms"].cast(pa.int64())
        latest = pc.add(pc.multiply(arrived_ms, _MICROS_PER_MS), MAX_AHEAD // EPOCH.resolution)
        too_late = pc.and_(pc.greater(times.cast(pa.int64()), latest), pc.greater(arrived_ms, 0))
        return pc.fill_null(pc.or_(too_early, too_late), True)

    def sentence(self) -> str:
        return f"expected a time in {self.column} from 1970 to a day after its arrival, found another"


@dataclass(frozen=True, slots=True)
class Together:
    """Two columns have values in the same rows."""

    event_type: str
    column: str
    other: str
    reason: str = "incomplete_pair"

    def broken(self, events: pa.Table) -> pa.Array:
        return pc.xor(events[self.column].is_null(), events[self.other].is_null())

    def sentence(self) -> str:
        return f"expected {self.column} and {self.other} together, found one of them"


@dataclass(frozen=True, slots=True)
class VectorLength:
    """The bytes of a vector are `dimensions` float32."""

    event_type: str
    column: str
    dimensions: str
    reason: str = "vector_length"

    def broken(self, events: pa.Table) -> pa.Array:
        length = pc.binary_length(events[self.column]).cast(pa.int64())
        return pc.not_equal(length, pc.multiply(events[self.dimensions].cast(pa.int64()), _FLOAT_BYTES))

    def sentence(self) -> str:
        return f"expected {self.dimensions} x {_FLOAT_BYTES} bytes in {self.column}, found another length"


Rule = NotNull | NotNegative | OneOf | InUnitInterval | InTime | Together | VectorLength

_TX = "TransactionRecorded"
_STEP = "StorefrontEventRecorded"
_SCORED = ("TransactionScored", "TransactionRescored")


def _known(members: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in members if member.value != "unknown")


RULES: tuple[Rule, ...] = (
    NotNull(_TX, "tx_id"),
    NotNull(_TX, "network"),
    NotNull(_TX, "asset"),
    NotNull(_TX, "amount"),
    NotNegative(_TX, "amount"),
    NotNegative(_TX, "counter_amount"),
    NotNegative(_TX, "fee"),
    Together(_TX, "counter_amount", "counter_asset"),
    Together(_TX, "fee", "fee_asset"),
    OneOf(_TX, "kind", _known(TransactionKind)),
    OneOf(_TX, "status", _known(TransactionStatus)),
    InTime(_TX, "occurred_at"),
    NotNull(_STEP, "event_id"),
    NotNull(_STEP, "session_id"),
    NotNegative(_STEP, "amount"),
    Together(_STEP, "amount", "asset"),
    OneOf(_STEP, "kind", _known(StorefrontEventKind)),
    InTime(_STEP, "occurred_at"),
    NotNull("AssetPriced", "asset"),
    NotNull("AssetPriced", "quote_asset"),
    NotNegative("AssetPriced", "price"),
    InTime("AssetPriced", "priced_at"),
    *(NotNull(event_type, "tx_id") for event_type in _SCORED),
    *(
        InUnitInterval(event_type, name)
        for event_type in _SCORED
        for name in (
            "score", "source_score", "target_score", "features_only_score", "source_features_only_score",
            "target_features_only_score",
        )
    ),
    NotNull("WalletEmbedded", "wallet_id"),
    VectorLength("WalletEmbedded", "vector", "dimensions"),
    NotNull("WalletDescribed", "wallet_id"),
    OneOf("WalletDescribed", "kind", tuple(WalletKind)),
    NotNull("WalletLabelled", "wallet_id"),
    OneOf("WalletLabelled", "label", tuple(Label)),
    NotNull("TransactionLabelled", "tx_id"),
    OneOf("TransactionLabelled", "label", tuple(Label)),
    NotNull("AlertRaised", "case_id"),
    OneOf("AlertRaised", "reason", tuple(AlertReason)),
    NotNull("VerdictReached", "case_id"),
    OneOf("VerdictReached", "verdict", tuple(Verdict)),
)  # fmt: skip
"""Rules of single rows; the first broken one is the reason. No text may hold NUL either: Postgres cannot store it."""


def broken_rules(batch: EventBatch) -> list[Rejection]:
    """One rejection for each row that breaks a rule, in order of event type and place in the log."""
    found: list[Rejection] = []
    for event_type, events in batch.tables.items():
        by_row: dict[int, tuple[str, str]] = {}
        for reason, sentence, broken in _checks(event_type, events):
            if pc.any(broken, min_count=0).as_py():
                for row in pc.indices_nonzero(broken).to_pylist():
                    by_row.setdefault(row, (reason, sentence))
        places = events.select(["_topic", "_partition", "_offset"])
        for row in sorted(by_row):
            (place,) = places.slice(row, 1).to_pylist()
            reason, message = by_row[row]
            found.append(Rejection(place["_topic"], place["_partition"], place["_offset"], reason, f"{event_type}: {message}"))
    return found


def _checks(event_type: str, events: pa.Table) -> Iterator[tuple[str, str, pa.Array]]:
    for rule in RULES:
        if rule.event_type == event_type and rule.column in events.column_names:
            yield rule.reason, rule.sentence(), rule.broken(events)
    for name in events.column_names:
        kind = events[name].type
        if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and _may_hold_nul(events[name]):
            broken = pc.fill_null(pc.match_substring(events[name], "\0"), False)
            yield "nul_in_text", f"expected text without NUL in {name}, found one", broken


def _may_hold_nul(column: pa.ChunkedArray) -> bool:
    """Whether a NUL stands anywhere in the column's bytes: one search a chunk instead of one a row."""
    return any(
        chunk.buffers()[2] is not None and b"\0" in memoryview(chunk.buffers()[2]).tobytes() for chunk in column.chunks if len(chunk)
    )
