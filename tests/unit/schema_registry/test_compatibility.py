"""Schema changes: old readers with new data and new readers with old data, named by the rule they show."""

from __future__ import annotations

from typing import Any

import fastavro
import pytest

from schema_registry.compatibility import check
from schema_registry.contracts import contracts
from schema_registry.errors import IncompatibleSchema

COLOUR = {"type": "enum", "name": "Colour", "symbols": ["unknown", "red"], "default": "unknown"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "doc": "d", "pii": "none", **more}


def schema(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "test", "doc": "d", "fields": list(fields), **more}


ID = field("id", "string")
OPTIONAL = field("note", ["null", "string"], default=None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (schema(ID), schema(ID, OPTIONAL)),
        (schema(ID, OPTIONAL), schema(ID)),
        (schema(ID), schema(ID, field("n", "long", default=0))),
        (schema(field("c", COLOUR)), schema(field("c", {**COLOUR, "symbols": ["unknown", "red", "blue"]}))),
        (schema(ID, OPTIONAL), schema(OPTIONAL, ID)),
        (schema(field("id", "string")), schema({**ID, "doc": "other words"})),
    ],
    ids=["add-with-default", "remove-with-default", "add-number-with-default", "add-symbol", "reorder", "change-doc"],
)
def test_a_change_that_every_reader_can_follow_passes(old: dict[str, Any], new: dict[str, Any]) -> None:
    check(old, new, "R")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (schema(ID), schema(ID, field("n", "long")), "n: new readers could not read old records: the field is missing and has no default"),
        (schema(ID, field("n", "long")), schema(ID), "n: old readers could not read new records: the field is missing and has no default"),
        (schema(ID), schema(field("name", "string")), "id: old readers could not read new records: the field is missing"),
        (schema(field("n", "int")), schema(field("n", "long")), "n: old readers could not read new records: expected int, found long"),
        (schema(field("n", "long")), schema(field("n", "string")), "n: old readers could not read new records: expected long"),
        (
            schema(field("n", "long")),
            schema(field("n", ["null", "long"], default=None)),
            "n: old readers could not read new records: no branch takes null",
        ),
        (schema(field("a", DECIMAL)), schema(field("a", {**DECIMAL, "scale": 9})), "a: .*: scale 18 is not 9"),
        (schema(field("a", DECIMAL)), schema(field("a", "bytes")), "a: .*decimal is not bytes|a: .*bytes is not decimal"),
        (schema(ID), schema(ID, name="Other"), "record: .* R is not Other"),
        (
            schema(field("c", {"type": "enum", "name": "Colour", "symbols": ["red"]})),
            schema(field("c", {**COLOUR, "symbols": ["red", "blue"]})),
            r"symbols \['blue'\] are unknown and there is no default",
        ),
    ],
    ids=[
        "add-required",
        "remove-required",
        "rename",
        "widen",
        "change-type",
        "make-optional",
        "rescale",
        "drop-logical-type",
        "rename-record",
        "symbol-without-default",
    ],
)
def test_a_change_that_some_reader_cannot_follow_is_explained(old: dict[str, Any], new: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleSchema, match=message):
        check(old, new, "R")


@pytest.mark.parametrize(
    ("new_field", "message"),
    [
        (field("n", ["null", "string"], default=None) | {"doc": ""}, "n: has no doc"),
        (field("n", ["string", "null"], default=""), "null first"),
        (field("n", ["null", "string", "long"], default=None), "a union must be null and one other type"),
        (field("n", {"type": "map", "values": "long"}, default={}), "maps and nullable enums"),
        (field("n", ["null", COLOUR], default=None), "maps and nullable enums"),
        (
            field("n", {k: v for k, v in COLOUR.items() if k != "default"}, default="red"),
            "an enum needs a default symbol",
        ),
    ],
    ids=["doc", "null-last", "wide-union", "map", "nullable-enum", "enum-default"],
)
def test_habits_that_the_columnar_decoder_needs_are_demanded(new_field: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleSchema, match=message):
        check(schema(ID), schema(ID, new_field), "R")


def test_what_passes_is_really_read_in_both_directions_by_avro() -> None:
    import io

    old, new = schema(ID), schema(ID, OPTIONAL, field("n", "long", default=5))
    check(old, new, "R")
    for writer, reader, value, seen in (
        (old, new, {"id": "a"}, {"id": "a", "note": None, "n": 5}),
        (new, old, {"id": "a", "note": "x", "n": 1}, {"id": "a"}),
    ):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, writer, value)
        out.seek(0)
        assert fastavro.schemaless_reader(out, writer, reader) == seen


@pytest.mark.parametrize("name", sorted(contracts()))
def test_every_contract_is_compatible_with_itself_and_its_past(name: str) -> None:
    versions = contracts()[name].schemas
    for i, newer in enumerate(versions):
        for older in versions[: i + 1]:
            check(older, newer, name)
