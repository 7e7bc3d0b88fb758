"""The machine: which schemas it takes, and how each wire element fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schema_registry.avro_program import Failure, Op, UnsupportedSchema, compile_program, run_program


def record(*types: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{i}", "type": kind} for i, kind in enumerate(types)]}


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
TIME = {"type": "long", "logicalType": "timestamp-micros"}
COLOUR = {"type": "enum", "name": "E", "symbols": ["a", "b"]}


def failure_of(schema: dict[str, Any], body: bytes) -> Failure:
    program = compile_program(schema)
    errors = np.zeros(1, np.uint8)
    run_program(
        np.frombuffer(body, np.uint8), np.array([0]), np.array([len(body)]), program.code, np.zeros((program.longs, 1), np.int64),
        np.zeros((program.doubles, 1)), np.zeros((program.spans, 1), np.int64), np.zeros((program.spans, 1), np.int64),
        np.zeros((program.decimals, 1, 2), np.uint64), np.zeros((len(program.columns), 1), np.uint8), errors,
    )  # fmt: skip
    return Failure(int(errors[0]))


@pytest.mark.parametrize(
    ("kind", "body", "failure"),
    [
        ("long", b"\xff" * 9 + b"\x01", Failure.NONE),
        ("long", b"\xff" * 9 + b"\x02", Failure.MALFORMED),
        ("long", b"\x80\x00", Failure.MALFORMED),
        ("long", b"\x80", Failure.TRUNCATED),
        ("long", b"", Failure.TRUNCATED),
        ("long", b"\x00\x00", Failure.TRAILING),
        ("int", b"\xff\xff\xff\xff\x0f", Failure.NONE),
        ("int", b"\x80\x80\x80\x80\x10", Failure.MALFORMED),
        ("boolean", b"\x01", Failure.NONE),
        ("boolean", b"\x02", Failure.MALFORMED),
        ("double", b"\x00" * 7, Failure.TRUNCATED),
        ("float", b"\x00" * 4, Failure.NONE),
        ("string", b"\x04ab", Failure.NONE),
        ("string", b"\x04a", Failure.TRUNCATED),
        ("string", b"\x01", Failure.MALFORMED),
        ("bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", Failure.TRUNCATED),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc", Failure.NONE),
        (COLOUR, b"\x02", Failure.NONE),
        (COLOUR, b"\x04", Failure.MALFORMED),
        (COLOUR, b"\x01", Failure.MALFORMED),
        (TIME, b"\xff" * 9 + b"\x01", Failure.MALFORMED),
        (DECIMAL, b"\x20" + (10**38 - 1).to_bytes(16, "big"), Failure.NONE),
        (DECIMAL, b"\x20" + (10**38).to_bytes(16, "big"), Failure.MALFORMED),
        (DECIMAL, b"\x20" + (-(10**38) + 1).to_bytes(16, "big", signed=True), Failure.NONE),
        (DECIMAL, b"\x20" + (-(10**38)).to_bytes(16, "big", signed=True), Failure.MALFORMED),
        (DECIMAL, b"\x20\x80" + b"\x00" * 15, Failure.MALFORMED),
        (DECIMAL, b"\x22" + b"\x00" * 17, Failure.MALFORMED),
        (["null", "long"], b"\x00", Failure.NONE),
        (["null", "long"], b"\x02\x02", Failure.NONE),
        (["null", "long"], b"\x04", Failure.MALFORMED),
        (["null", record("long", "string")], b"\x02\x02", Failure.TRUNCATED),
    ],
)
def test_each_element_is_read_or_fails_by_name(kind: Any, body: bytes, failure: Failure) -> None:
    assert failure_of(record(kind), body) is failure


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "array", "items": "long"},
        {"type": "map", "values": "long"},
        ["long", "string"],
        ["null", "long", "string"],
        "null",
    ],
    ids=["array", "map", "no-null", "wide", "null"],
)
def test_what_the_machine_does_not_read_is_said_when_compiling(kind: Any) -> None:
    with pytest.raises(UnsupportedSchema, match="f0"):
        compile_program(record(kind))


def test_fields_that_nobody_reads_are_checked_but_not_kept() -> None:
    program = compile_program(record("long", "string", DECIMAL), frozenset({"f1"}), mark="f2")
    assert [(column.path, column.op) for column in program.columns] == [("f1", Op.BYTES), ("@f2", Op.MARK)]
    assert program.code[:, 1].tolist() == [-1, 0, 0, -1]


def test_every_failure_has_a_stable_reason() -> None:
    assert [failure.reason for failure in Failure] == ["", "truncated", "malformed", "trailing_bytes"]
