"""Avro record by record, by fastavro: what encodes, and the reference that the columnar decoder must equal.

Decoding is strict: exactly one value, in the one encoding that Avro writers produce, decimals within their precision,
times within what Python can hold. Whatever is not that raises `UndecodableRecord`, never anything else.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fastavro

from domain.values import EPOCH, EXACT
from schema_registry.catalog import SchemaCatalog
from schema_registry.errors import SchemaError, UndecodableRecord
from schema_registry.wire import HEADER_LENGTH, frame, schema_id_of

MIN_MICROS = -62_135_596_800_000_000  # 0001-01-01, the first instant of a Python datetime
MAX_MICROS = 253_402_300_799_999_999  # 9999-12-31 23:59:59.999999, the last
_Convert = Callable[[Any], Any]


class RecordCodec:
    """Encodes and decodes single records in the Confluent wire format.

    Decoded values are plain dicts: `Decimal` for decimals, aware UTC `datetime` for times, text for enums.
    """

    def __init__(self, catalog: SchemaCatalog) -> None:
        self._catalog = catalog
        self._by_id: dict[int, _Schema] = {}

    def encode(self, name: str, value: Mapping[str, Any]) -> bytes:
        """One record of contract `name`, framed with its latest schema id.

        Raises:
            SchemaError: the value does not fit the schema.
        """
        schema_id = self._catalog.latest_id(name)
        return frame(schema_id, self._schema(schema_id).write(value))

    def encode_event(self, event: Any) -> bytes:
        """A dataclass of `domain.events` or `domain.commands`; its class name is the contract.

        Raises:
            SchemaError: the value does not fit the schema.
        """
        return self.encode(type(event).__name__, as_record(event))

    def decode(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """The contract's name and the record.

        Raises:
            UndecodableRecord: with the reason why these bytes are no record of a known contract.
        """
        schema_id = schema_id_of(value)
        assert value is not None
        name = self._catalog.version(schema_id).contract.name
        return name, self._schema(schema_id).read(value[HEADER_LENGTH:])

    def _schema(self, schema_id: int) -> _Schema:
        if schema_id not in self._by_id:
            self._by_id[schema_id] = _Schema(self._catalog.version(schema_id).schema)
        return self._by_id[schema_id]


def as_record(event: Any) -> dict[str, Any]:
    """A dataclass as the dict that Avro writes; card features become the fields v1 to v28."""
    record: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if dataclasses.is_dataclass(value):
            value = as_record(value)
        elif field.name == "card_features" and value is not None:
            value = {f"v{i}": number for i, number in enumerate(value, 1)}
        record[field.name] = value
    return record


class _Schema:
    """One schema, compiled: fastavro sees decimals as bytes and times as longs, the conversions are ours and exact."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._parsed = fastavro.parse_schema(_plain(schema))
        self._from_wire = _converter(schema, _FROM_WIRE)
        self._to_wire = _converter(schema, _TO_WIRE)
        self._name = schema["name"]

    def write(self, value: Mapping[str, Any]) -> bytes:
        out = io.BytesIO()
        try:
            fastavro.schemaless_writer(out, self._parsed, self._to_wire(value) if self._to_wire else value, strict=True)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, ArithmeticError) as error:
            raise SchemaError(f"{self._name}: the value does not fit its schema: {error}") from error
        return out.getvalue()

    def read(self, body: bytes) -> dict[str, Any]:
        source = io.BytesIO(body)
        try:
            raw = fastavro.schemaless_reader(source, self._parsed, None)
        except EOFError as error:
            raise UndecodableRecord("truncated", f"{self._name}: the record ends too early") from error
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, StopIteration) as error:
            if isinstance(error, IndexError) and source.tell() == len(body) and body[-1:] >= b"\x80":  # cut within a number
                raise UndecodableRecord("truncated", f"{self._name}: the record ends too early") from error
            raise UndecodableRecord("malformed", f"{self._name}: {type(error).__name__} while reading") from error
        if source.tell() != len(body):
            left = len(body) - source.tell()
            raise UndecodableRecord("trailing_bytes", f"{self._name}: {left} bytes follow the record")
        again = io.BytesIO()
        try:
            fastavro.schemaless_writer(again, self._parsed, raw)
        except (ValueError, TypeError, IndexError, OverflowError, UnicodeError) as error:
            raise UndecodableRecord("malformed", f"{self._name}: a value outside its type") from error
        if again.getvalue() != body:  # overlong numbers, lengths below zero: no writer produces these
            raise UndecodableRecord("malformed", f"{self._name}: not the encoding of a value")
        assert isinstance(raw, dict)
        return self._from_wire(raw) if self._from_wire else raw


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key not in ("logicalType", "precision", "scale")}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def decimal_from_bytes(value: bytes, precision: int, scale: int) -> Decimal:
    """The decimal behind a two's-complement big-endian integer.

    Raises:
        UndecodableRecord: `malformed` when it has more digits than `precision`, or more than 16 bytes.
    """
    unscaled = int.from_bytes(value, "big", signed=True)
    if len(value) > 16 or abs(unscaled) >= 10**precision:
        raise UndecodableRecord("malformed", f"expected a decimal of at most {precision} digits, found {len(value)} bytes")
    return Decimal(unscaled).scaleb(-scale, EXACT)


def decimal_to_bytes(value: Decimal, precision: int, scale: int) -> bytes:
    """The shortest two's-complement big-endian form.

    Raises:
        ValueError: digits would be lost.
    """
    scaled = value.scaleb(scale, EXACT)
    unscaled = int(scaled)
    if unscaled != scaled or abs(unscaled) >= 10**precision:
        raise ValueError(f"expected at most {precision} digits with {scale} decimals, found {value}")
    magnitude = unscaled if unscaled >= 0 else -unscaled - 1
    return unscaled.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def time_from_micros(micros: int) -> datetime:
    """The UTC time `micros` microseconds after 1970.

    Raises:
        UndecodableRecord: `malformed` outside the years 1 to 9999.
    """
    if not MIN_MICROS <= micros <= MAX_MICROS:
        raise UndecodableRecord("malformed", f"expected a time in the years 1 to 9999, found {micros} microseconds")
    return EPOCH + timedelta(microseconds=micros)


def micros_from_time(value: datetime) -> int:
    """Microseconds since 1970.

    Raises:
        ValueError: a time without its zone.
    """
    if value.tzinfo is None:
        raise ValueError("expected a time with its zone, found one without")
    return (value.astimezone(UTC) - EPOCH) // timedelta(microseconds=1)


def _logical(schema: dict[str, Any], way: str) -> _Convert | None:
    kind = schema.get("logicalType")
    if kind == "decimal":
        precision, scale = schema["precision"], schema["scale"]
        if way == _FROM_WIRE:
            return lambda value: decimal_from_bytes(value, precision, scale)
        return lambda value: decimal_to_bytes(value, precision, scale)
    if kind == "timestamp-micros":
        return time_from_micros if way == _FROM_WIRE else micros_from_time
    return None


def _int(value: int) -> int:
    if not -(1 << 31) <= value < 1 << 31:  # fastavro reads an int as it reads a long
        raise UndecodableRecord("malformed", f"expected an int of 32 bits, found {value}")
    return value


_FROM_WIRE, _TO_WIRE = "from_wire", "to_wire"


def _converter(schema: Any, way: str) -> _Convert | None:
    """What turns a value of `schema` from its wire form or to it; none where both are the same."""
    if isinstance(schema, list):
        inner = _converter(next(branch for branch in schema if branch != "null"), way)
        return None if inner is None else lambda value: None if value is None else inner(value)
    if schema == "int" and way == _FROM_WIRE:
        return _int
    if not isinstance(schema, dict):
        return None
    if "logicalType" in schema:
        return _logical(schema, way)
    if schema["type"] == "array":
        item = _converter(schema["items"], way)
        return None if item is None else lambda values: [item(value) for value in values]
    if schema["type"] != "record":
        return None
    converters = {f["name"]: c for f in schema["fields"] if (c := _converter(f["type"], way)) is not None}
    if not converters:
        return None

    def convert(record: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: converters[name](value) if name in converters else value
            for name, value in record.items()
        }  # fmt: skip

    return convert
