"""Messages of librdkafka copied into columns by a compiled loop, without an object of Python's for any of them.

A message is a pointer to `rd_kafka_message_t`; the loops call the library's own functions by name, which
`librdkafka.library_path` has been loaded for. They hold no lock of the interpreter's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding
import numpy as np
import numpy.typing as npt
from numba import njit, types

from infra.librdkafka import library_path
from projections.records import HeaderColumn, RecordBatch
from schema_registry.byte_column import ByteColumn

_Ints = npt.NDArray[np.int64]

# Nine words of eight bytes: err, rkt, partition, payload, len, key, key_len, offset, _private. The first and third are int32.
MESSAGE_WORDS = 9
_word = types.intp
_memcpy: Any = types.ExternalFunction("memcpy", _word(_word, _word, _word))
_strlen: Any = types.ExternalFunction("strlen", _word(_word))
_timestamp: Any = types.ExternalFunction("rd_kafka_message_timestamp", types.int64(_word, _word))
_headers: Any = types.ExternalFunction("rd_kafka_message_headers", types.int32(_word, _word))
_header: Any = types.ExternalFunction("rd_kafka_header_get_all", types.int32(_word, _word, _word, _word, _word))
_destroy: Any = types.ExternalFunction("rd_kafka_message_destroy", types.void(_word))


@cache
def load() -> None:
    """Make the library's functions known to compiled code; needed once before any of the loops."""
    llvmlite.binding.load_library_permanently(library_path())


@njit(cache=True, nogil=True, boundscheck=False)
def heads_of(messages, heads):  # type: ignore[no-untyped-def]
    """The structures behind the pointers: messages [n] int64, heads [n, 9] int64."""
    size = heads.shape[1] * 8
    for i in range(messages.shape[0]):
        _memcpy(heads.ctypes.data + i * size, messages[i], size)


@njit(cache=True, nogil=True, boundscheck=False)
def destroy(messages):  # type: ignore[no-untyped-def]
    """Give the messages back to the library."""
    for i in range(messages.shape[0]):
        _destroy(messages[i])


@njit(cache=True, nogil=True, boundscheck=False)
def _measure(messages, heads, times, pairs, sizes, found):  # type: ignore[no-untyped-def]
    """Times, header handles and what there is to copy.

    Shapes: times [n] int64; pairs [n] int64, the headers a message has; found [n] int64, their handle or 0; sizes [4] int64,
    bytes of keys, of values, of header names and of header contents.
    """
    one = np.zeros(4, np.int64)  # out-parameters: a handle; a name, a content, its length
    at = one.ctypes.data
    for i in range(messages.shape[0]):
        sizes[0] += heads[i, 6]
        sizes[1] += heads[i, 4]
        times[i] = _timestamp(messages[i], 0)
        pairs[i] = 0
        found[i] = 0
        if _headers(messages[i], at) == 0:
            found[i] = one[0]
            while _header(found[i], pairs[i], at + 8, at + 16, at + 24) == 0:
                sizes[2] += _strlen(one[1])
                if one[2] != 0:
                    sizes[3] += one[3]
                pairs[i] += 1


@njit(cache=True, nogil=True, boundscheck=False)
def _copy(heads, key_at, keys, no_key, value_at, values, no_value):  # type: ignore[no-untyped-def]
    """Keys and values: offsets [n + 1] int64, bytes, and bool [n] where there is none."""
    key, value = 0, 0
    for i in range(heads.shape[0]):
        no_key[i] = heads[i, 5] == 0
        no_value[i] = heads[i, 3] == 0
        if not no_key[i]:
            _memcpy(keys.ctypes.data + key, heads[i, 5], heads[i, 6])
            key += heads[i, 6]
        if not no_value[i]:
            _memcpy(values.ctypes.data + value, heads[i, 3], heads[i, 4])
            value += heads[i, 4]
        key_at[i + 1] = key
        value_at[i + 1] = value


@njit(cache=True, nogil=True, boundscheck=False)
def _copy_headers(found, pairs, name_at, names, content_at, contents, no_content):  # type: ignore[no-untyped-def]
    """Names and contents of all headers: offsets [pairs + 1] int64, bytes, and bool [pairs] where a header has no content."""
    one = np.zeros(3, np.int64)
    at = one.ctypes.data
    pair, name, content = 0, 0, 0
    for i in range(found.shape[0]):
        for k in range(pairs[i]):
            _header(found[i], k, at, at + 8, at + 16)
            length = _strlen(one[0])
            _memcpy(names.ctypes.data + name, one[0], length)
            name += length
            no_content[pair] = one[1] == 0
            if one[1] != 0:
                _memcpy(contents.ctypes.data + content, one[1], one[2])
                content += one[2]
            pair += 1
            name_at[pair] = name
            content_at[pair] = content


def compile_loops() -> None:
    """Run each loop over no message at all."""
    load()
    messages, heads = np.empty(0, np.int64), np.empty((0, MESSAGE_WORDS), np.int64)
    heads_of(messages, heads)
    batch_of("", messages, heads)
    destroy(messages)


def batch_of(topic: str, messages: _Ints, heads: _Ints) -> RecordBatch:
    """Messages of one topic, none of them an error, as a batch of their own bytes.

    Args:
        messages: pointers, int64 [n].
        heads: their structures, int64 [n, 9].
    """
    n = len(messages)
    times, pairs, found, sizes = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.zeros(4, np.int64)
    _measure(messages, heads, times, pairs, sizes, found)
    keys, values, names, contents = (np.empty(size, np.uint8) for size in sizes.tolist())
    key_at, value_at = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    no_key, no_value = np.empty(n, np.bool_), np.empty(n, np.bool_)
    _copy(heads, key_at, keys, no_key, value_at, values, no_value)
    ends = np.zeros(n + 1, np.int64)
    np.cumsum(pairs, out=ends[1:])
    name_at, content_at = np.zeros(ends[-1] + 1, np.int64), np.zeros(ends[-1] + 1, np.int64)
    no_content = np.empty(ends[-1], np.bool_)
    _copy_headers(found, pairs, name_at, names, content_at, contents, no_content)
    return RecordBatch(
        topic,
        np.ascontiguousarray(heads[:, 2]).astype(np.int32),
        np.ascontiguousarray(heads[:, 7]),
        times,
        _column(keys, key_at, no_key),
        _column(values, value_at, no_value),
        HeaderColumn(ends, ByteColumn(names, name_at), _column(contents, content_at, no_content)),
    )


def _column(data: npt.NDArray[np.uint8], offsets: _Ints, is_null: npt.NDArray[np.bool_]) -> ByteColumn:
    return ByteColumn(data, offsets, is_null if is_null.any() else None)
