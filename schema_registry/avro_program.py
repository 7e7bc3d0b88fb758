"""A small machine that reads many Avro records at once: a schema becomes a program, numba runs it over every record.

Each instruction reads one wire element into a column of flat arrays, or checks it and moves on. A record that breaks a
rule gets an error code and leaves the others alone. Strict like `record_codec`: overlong numbers are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit


class Op(IntEnum):
    """What one instruction reads. `slot` -1 checks without keeping."""

    LONG = 0  # into longs[slot]; `arg` 32 checks the range of an int, 1 that of a time
    BOOLEAN = 1  # into longs[slot]
    DOUBLE = 2  # into doubles[slot]
    FLOAT = 3  # into doubles[slot]
    BYTES = 4  # position and length into spans[slot]
    FIXED = 5  # `arg` bytes: position and length into spans[slot]
    DECIMAL = 6  # low and high word into decimals[slot]
    ENUM = 7  # index below `arg` into longs[slot]
    UNION = 8  # branch number; the null branch is `arg`: jump over `skip` instructions
    MARK = 9  # where the record stands, counted from its first byte, into longs[slot]


class Failure(IntEnum):
    """Why a record failed; `reason` is the stable code of `UndecodableRecord`."""

    NONE = 0
    TRUNCATED = 1
    MALFORMED = 2
    TRAILING = 3

    @property
    def reason(self) -> str:
        return ("", "truncated", "malformed", "trailing_bytes")[self.value]


@dataclass(frozen=True, slots=True)
class Column:
    """Where one leaf field lands: its kind of array, its place there, and its place among the validity flags."""

    path: str
    schema: Any
    op: Op
    slot: int
    valid: int
    is_nullable: bool


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions as int64 [n, 5] (op, slot, valid, arg, skip), and the columns that they fill."""

    code: npt.NDArray[np.int64]
    columns: tuple[Column, ...]
    longs: int
    doubles: int
    spans: int
    decimals: int


class UnsupportedSchema(Exception):
    """A schema that the machine does not read (arrays, maps, wide unions): the record codec does."""


def compile_program(schema: dict[str, Any], reads: frozenset[str] | None = None, mark: str | None = None) -> Program:
    """The program for a record schema.

    Args:
        reads: paths of the leaf fields to keep (with dots), all when none is given.
        mark: a top-level field whose first byte's place is kept as column `@<mark>`.

    Raises:
        UnsupportedSchema: the schema holds what this machine does not read.
    """
    builder = _Builder(reads, mark)
    builder.record(schema, "", is_nullable=False)
    code = np.array(builder.code, np.int64).reshape(-1, 5)
    return Program(code, tuple(builder.columns), *(builder.counts[kind] for kind in _KINDS))


_KINDS = ("longs", "doubles", "spans", "decimals")
_KIND_OF = {
    Op.LONG: "longs", Op.BOOLEAN: "longs", Op.ENUM: "longs", Op.MARK: "longs", Op.DOUBLE: "doubles", Op.FLOAT: "doubles",
    Op.BYTES: "spans", Op.FIXED: "spans", Op.DECIMAL: "decimals",
}  # fmt: skip
_PRIMITIVE = {
    "long": (Op.LONG, 0), "int": (Op.LONG, 32), "boolean": (Op.BOOLEAN, 0), "double": (Op.DOUBLE, 0),
    "float": (Op.FLOAT, 0), "string": (Op.BYTES, 0), "bytes": (Op.BYTES, 0),
}  # fmt: skip


class _Builder:
    def __init__(self, reads: frozenset[str] | None, mark: str | None) -> None:
        self.reads, self.mark = reads, mark
        self.code: list[tuple[int, int, int, int, int]] = []
        self.columns: list[Column] = []
        self.counts = dict.fromkeys(_KINDS, 0)

    def record(self, schema: dict[str, Any], prefix: str, is_nullable: bool) -> None:
        for field in schema["fields"]:
            path = prefix + field["name"]
            if path == self.mark:
                self._emit(Op.MARK, "@" + path, None, 0, False, is_kept=True)
            self._field(field["type"], path, is_nullable)

    def _field(self, schema: Any, path: str, is_nullable: bool) -> None:
        if isinstance(schema, list):
            if len(schema) != 2 or "null" not in schema:
                raise UnsupportedSchema(f"{path}: a union that is not null and one other type")
            null = schema.index("null")
            at = len(self.code)
            self.code.append((Op.UNION, -1, -1, null, 0))
            self._field(schema[1 - null], path, True)
            self.code[at] = (Op.UNION, -1, -1, null, len(self.code) - at - 1)
            return
        if isinstance(schema, dict) and schema["type"] == "record":
            self.record(schema, path + ".", is_nullable)
            return
        op, arg = _instruction(schema, path)
        self._emit(op, path, schema, arg, is_nullable, is_kept=self.reads is None or path in self.reads)

    def _emit(self, op: Op, path: str, schema: Any, arg: int, is_nullable: bool, is_kept: bool) -> None:
        if not is_kept:
            self.code.append((op, -1, -1, arg, 0))
            return
        kind = _KIND_OF[op]
        slot, valid = self.counts[kind], len(self.columns)
        self.counts[kind] += 1
        self.columns.append(Column(path, schema, op, slot, valid, is_nullable))
        self.code.append((op, slot, valid, arg, 0))


def _instruction(schema: Any, path: str) -> tuple[Op, int]:
    if isinstance(schema, str):
        if schema not in _PRIMITIVE:
            raise UnsupportedSchema(f"{path}: {schema}")
        return _PRIMITIVE[schema]
    match schema["type"]:
        case "enum":
            return Op.ENUM, len(schema["symbols"])
        case "fixed" if "logicalType" not in schema:
            return Op.FIXED, schema["size"]
        case "bytes" if schema.get("logicalType") == "decimal":
            return Op.DECIMAL, 0
        case "long" if schema.get("logicalType") == "timestamp-micros":
            return Op.LONG, 1
    raise UnsupportedSchema(f"{path}: {schema['type']}")


# 0001-01-01 and the last microsecond of 9999, as in record_codec; literals, for numba folds them in.
_MIN_MICROS = -62_135_596_800_000_000
_MAX_MICROS = 253_402_300_799_999_999
# 10^38 as two words of 64 bits: a decimal(38) is smaller in magnitude.
_TEN38_HIGH, _TEN38_LOW = np.uint64(10**38 >> 64), np.uint64(10**38 & 0xFFFF_FFFF_FFFF_FFFF)


@njit(cache=True, nogil=True, boundscheck=False, inline="never")
def _read_long(buffer, at, end):  # type: ignore[no-untyped-def]
    """A zigzag number: value, next place, failure."""
    word = np.uint64(0)
    shift = np.uint64(0)
    while True:
        if at >= end:
            return np.int64(0), at, 1
        byte = buffer[at]
        at += 1
        if shift == np.uint64(63) and byte > 1:
            return np.int64(0), at, 2
        word |= np.uint64(byte & 127) << shift
        if byte < 128:
            if byte == 0 and shift > np.uint64(0):  # an overlong form
                return np.int64(0), at, 2
            return np.int64(word >> np.uint64(1)) ^ -np.int64(word & np.uint64(1)), at, 0
        shift += np.uint64(7)


@njit(cache=True, nogil=True, boundscheck=False)
def run_program(  # type: ignore[no-untyped-def]
    buffer, starts, ends, code, longs, doubles, starts_out, lengths_out, decimals, valid, failures
):
    """Read records `buffer[starts[i]:ends[i]]` (bodies, without header) into the arrays.

    Shapes: longs [slots, n] int64, doubles [slots, n], starts_out and lengths_out [slots, n] int64,
    decimals [slots, n, 2] uint64 (low, high), valid [columns, n] uint8, failures [n] uint8.
    """
    # Scratch for reading the bytes of a float as its bits.
    bits = np.zeros(1, np.uint64)
    as_double = bits.view(np.float64)
    bits32 = np.zeros(1, np.uint32)
    as_float = bits32.view(np.float32)
    for i in range(starts.shape[0]):
        at = starts[i]
        end = ends[i]
        pc = 0
        failure = 0
        while pc < code.shape[0]:
            op = code[pc, 0]
            slot = code[pc, 1]
            if op == 9:
                longs[slot, i] = at - starts[i]
                valid[code[pc, 2], i] = 1
                pc += 1
                continue
            if op == 2 or op == 3 or op == 5 or op == 1:
                size = 8 if op == 2 else 4 if op == 3 else 1 if op == 1 else code[pc, 3]
                if at + size > end:
                    failure = 1
                    break
                if op == 1 and buffer[at] > 1:
                    failure = 2
                    break
                if slot >= 0:
                    if op == 2:
                        word = np.uint64(0)
                        for k in range(8):
                            word |= np.uint64(buffer[at + k]) << np.uint64(8 * k)
                        bits[0] = word
                        doubles[slot, i] = as_double[0]
                    elif op == 3:
                        word32 = np.uint32(0)
                        for k in range(4):
                            word32 |= np.uint32(buffer[at + k]) << np.uint32(8 * k)
                        bits32[0] = word32
                        doubles[slot, i] = as_float[0]
                    elif op == 1:
                        longs[slot, i] = buffer[at]
                    else:
                        starts_out[slot, i] = at
                        lengths_out[slot, i] = size
                    valid[code[pc, 2], i] = 1
                at += size
                pc += 1
                continue
            value, at, failure = _read_long(buffer, at, end)
            if failure != 0:
                break
            arg = code[pc, 3]
            if op == 8:
                if value < 0 or value > 1:
                    failure = 2
                    break
                if value == arg:
                    pc += code[pc, 4]
                pc += 1
                continue
            if op == 4 or op == 6:
                if value < 0:
                    failure = 2
                    break
                if value > end - at:
                    failure = 1
                    break
                if op == 6:
                    if value > 16:
                        failure = 2
                        break
                    low = np.uint64(0)
                    high = np.uint64(0)
                    is_negative = value > 0 and buffer[at] > 127
                    if is_negative:
                        low = ~low
                        high = ~high
                    for k in range(value):
                        high = (high << np.uint64(8)) | (low >> np.uint64(56))
                        low = (low << np.uint64(8)) | np.uint64(buffer[at + k])
                    size_high = high
                    size_low = low
                    if is_negative:  # magnitude: two's complement
                        size_low = ~low + np.uint64(1)
                        size_high = ~high + (np.uint64(1) if size_low == 0 else np.uint64(0))
                    if size_high > _TEN38_HIGH or (size_high == _TEN38_HIGH and size_low >= _TEN38_LOW):
                        failure = 2
                        break
                    if slot >= 0:
                        decimals[slot, i, 0] = low
                        decimals[slot, i, 1] = high
                        valid[code[pc, 2], i] = 1
                elif slot >= 0:
                    starts_out[slot, i] = at
                    lengths_out[slot, i] = value
                    valid[code[pc, 2], i] = 1
                at += value
                pc += 1
                continue
            # op 0 and 7: a number
            if op == 7:
                if value < 0 or value >= arg:
                    failure = 2
                    break
            elif (arg == 1 and (value < _MIN_MICROS or value > _MAX_MICROS)) or (arg == 32 and (value < -2147483648 or value > 2147483647)):
                failure = 2
                break
            if slot >= 0:
                longs[slot, i] = value
                valid[code[pc, 2], i] = 1
            pc += 1
        if failure == 0 and at != end:
            failure = 3
        failures[i] = failure


@njit(cache=True, nogil=True, boundscheck=False, inline="always")
def _copy_word(source, start, target, at):  # type: ignore[no-untyped-def]
    """Copy eight bytes and give them as a word; the compiler makes one load and one store of this."""
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(source[start + k]) << np.uint64(8 * k)
    for k in range(8):
        target[at + k] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(255))
    return word


@njit(cache=True, nogil=True, boundscheck=False)
def gather_spans(buffer, starts, lengths, offsets, out, is_ascii):  # type: ignore[no-untyped-def]
    """Copy spans one after another: offsets [n + 1] int32 and out [sum of lengths]; is_ascii [n] tells plain text."""
    at = 0
    for i in range(starts.shape[0]):
        offsets[i] = at
        start = starts[i]
        length = lengths[i]
        seen = np.uint64(0)
        if length < 8:
            for k in range(length):
                byte = buffer[start + k]
                out[at + k] = byte
                seen |= np.uint64(byte)
        else:
            for k in range(0, length - 8, 8):
                seen |= _copy_word(buffer, start + k, out, at + k)
            seen |= _copy_word(buffer, start + length - 8, out, at + length - 8)  # it may overlap the one before
        is_ascii[i] = (seen & np.uint64(0x8080808080808080)) == np.uint64(0)
        at += length
    offsets[starts.shape[0]] = at
