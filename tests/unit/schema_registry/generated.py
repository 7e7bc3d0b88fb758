"""Values of any schema, drawn from the schema itself, and ways to damage their bytes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from domain.values import EPOCH, EXACT
from schema_registry.catalog import SchemaCatalog
from schema_registry.column_codec import ColumnCodec, arrow_schema, flatten
from schema_registry.errors import UndecodableRecord
from schema_registry.record_codec import MAX_MICROS, MIN_MICROS, RecordCodec

CATALOG = SchemaCatalog.numbered()
RECORDS = RecordCodec(CATALOG)
COLUMNS = ColumnCodec(CATALOG)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "string": texts,
    "bytes": st.binary(max_size=12),
    "int": st.integers(-(1 << 31), (1 << 31) - 1),
    "long": st.integers(-(1 << 63), (1 << 63) - 1),
    "double": st.floats(),
    "float": st.floats(width=32),
    "boolean": st.booleans(),
}


def values_of(schema: Any) -> st.SearchStrategy[Any]:
    """Every value that a schema can hold."""
    if isinstance(schema, list):
        return st.none() | values_of(next(branch for branch in schema if branch != "null"))
    if isinstance(schema, str):
        return _PRIMITIVES[schema]
    match schema.get("logicalType", schema["type"]):
        case "decimal":
            limit = 10 ** schema["precision"] - 1
            return st.integers(-limit, limit).map(lambda n: Decimal(n).scaleb(-schema["scale"], EXACT))
        case "timestamp-micros":
            return st.integers(MIN_MICROS, MAX_MICROS).map(lambda micros: EPOCH + timedelta(microseconds=micros))
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array":
            return st.lists(values_of(schema["items"]), max_size=3)
        case "record":
            return st.fixed_dictionaries({field["name"]: values_of(field["type"]) for field in schema["fields"]})
    return _PRIMITIVES[schema["type"]]


@st.composite
def damaged(draw: st.DrawFn, value: bytes) -> bytes:
    """A valid frame with some bytes changed, cut out, put in or appended; its header stays."""
    body = bytearray(value[5:])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["change", "remove", "insert", "cut", "append"])):
            case "change" if at < len(body):
                body[at] = draw(st.integers(0, 255))
            case "remove":
                del body[at : at + draw(st.integers(1, 4))]
            case "insert":
                body[at:at] = draw(st.sampled_from([b"\x80", b"\xff" * 9 + b"\x01", b"\x00", b"\xc3\x28"]) | st.binary(max_size=4))
            case "cut":
                del body[at:]
            case _:
                body += draw(st.binary(min_size=1, max_size=4))
    return value[:5] + bytes(body)


def by_record(value: bytes | None) -> dict[str, Any] | str:
    """What the record codec makes of a value: comparable leaves, or `undecodable`."""
    try:
        name, record = RECORDS.decode(value)
    except UndecodableRecord as error:
        assert error.reason in {
            "no_value",
            "not_framed",
            "unknown_schema_id",
            "truncated",
            "malformed",
            "trailing_bytes",
        }
        return "undecodable"
    flat = flatten(record)
    return {path: comparable(flat.get(path)) for path in arrow_schema(name).names}


def by_column(codec: ColumnCodec, values: list[bytes | None]) -> list[dict[str, Any] | str]:
    """The same of the column codec, for a batch."""
    found: list[dict[str, Any] | str] = ["undecodable"] * len(values)
    decoded = codec.decode(values)
    taken = [failure.index for failure in decoded.failures]
    for part in decoded.tables.values():
        part.table.validate(full=True)
        for index, row in zip(part.indexes.tolist(), part.table.to_pylist(), strict=True):
            found[index] = {path: comparable(value) for path, value in row.items()}
            taken.append(index)
    assert sorted(taken) == list(range(len(values)))
    return found


def comparable(value: Any) -> Any:
    """NaN equals itself, negative zero does not equal zero."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, list):
        return [{k: comparable(v) for k, v in item.items()} if isinstance(item, dict) else comparable(item) for item in value]
    return value
