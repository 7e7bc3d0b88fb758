"""The few calls of librdkafka that reading records in columns needs, by ctypes, from the library that confluent-kafka brings along.

confluent-kafka makes an object of every message and of each of its fields; its C library does not ask for any. Structures and
codes are those of librdkafka's `rdkafka.h`, whose layout is part of its stable interface since version 1.0.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterable, Mapping
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import TopicPartition

from domain.errors import LogError

ASSIGN_PARTITIONS = -175  # what a rebalance callback is told; any other code takes partitions away
NO_CONSUMER_CLOSE = 0x8  # of rd_kafka_destroy_flags: without leaving the group, which would call back
_CONSUMER = 1
_OK = 0
_TEXT_BYTES = 512


class _Partition(c.Structure):
    """rd_kafka_topic_partition_t."""

    _fields_ = (
        ("topic", c.c_char_p), ("partition", c.c_int32), ("offset", c.c_int64), ("metadata", c.c_void_p), ("metadata_size", c.c_size_t),
        ("opaque", c.c_void_p), ("err", c.c_int), ("_private", c.c_void_p),
    )  # fmt: skip


class _PartitionList(c.Structure):
    """rd_kafka_topic_partition_list_t."""

    _fields_ = (("cnt", c.c_int), ("size", c.c_int), ("elems", c.POINTER(_Partition)))


class _MetadataTopic(c.Structure):
    """rd_kafka_metadata_topic."""

    _fields_ = (("topic", c.c_char_p), ("partition_cnt", c.c_int), ("partitions", c.c_void_p), ("err", c.c_int))


class _Metadata(c.Structure):
    """rd_kafka_metadata."""

    _fields_ = (
        ("broker_cnt", c.c_int), ("brokers", c.c_void_p), ("topic_cnt", c.c_int), ("topics", c.POINTER(_MetadataTopic)),
        ("orig_broker_id", c.c_int32), ("orig_broker_name", c.c_char_p),
    )  # fmt: skip


PartitionList = c.POINTER(_PartitionList)
RebalanceCallback = c.CFUNCTYPE(None, c.c_void_p, c.c_int, PartitionList, c.c_void_p)
_CALLS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (c.c_void_p, ()),
    "rd_kafka_conf_destroy": (None, (c.c_void_p,)),
    "rd_kafka_conf_set": (c.c_int, (c.c_void_p, c.c_char_p, c.c_char_p, c.c_char_p, c.c_size_t)),
    "rd_kafka_conf_set_rebalance_cb": (None, (c.c_void_p, RebalanceCallback)),
    "rd_kafka_new": (c.c_void_p, (c.c_int, c.c_void_p, c.c_char_p, c.c_size_t)),
    "rd_kafka_destroy_flags": (None, (c.c_void_p, c.c_int)),
    "rd_kafka_poll_set_consumer": (c.c_int, (c.c_void_p,)),
    "rd_kafka_queue_get_consumer": (c.c_void_p, (c.c_void_p,)),
    "rd_kafka_queue_destroy": (None, (c.c_void_p,)),
    "rd_kafka_consume_batch_queue": (c.c_ssize_t, (c.c_void_p, c.c_int, c.c_void_p, c.c_size_t)),
    "rd_kafka_consumer_close": (c.c_int, (c.c_void_p,)),
    "rd_kafka_subscribe": (c.c_int, (c.c_void_p, PartitionList)),
    "rd_kafka_assign": (c.c_int, (c.c_void_p, PartitionList)),
    "rd_kafka_incremental_assign": (c.c_void_p, (c.c_void_p, PartitionList)),
    "rd_kafka_incremental_unassign": (c.c_void_p, (c.c_void_p, PartitionList)),
    "rd_kafka_assignment_lost": (c.c_int, (c.c_void_p,)),
    "rd_kafka_rebalance_protocol": (c.c_char_p, (c.c_void_p,)),
    "rd_kafka_topic_partition_list_new": (PartitionList, (c.c_int,)),
    "rd_kafka_topic_partition_list_add": (c.POINTER(_Partition), (PartitionList, c.c_char_p, c.c_int32)),
    "rd_kafka_topic_partition_list_destroy": (None, (PartitionList,)),
    "rd_kafka_topic_new": (c.c_void_p, (c.c_void_p, c.c_char_p, c.c_void_p)),
    "rd_kafka_topic_destroy": (None, (c.c_void_p,)),
    "rd_kafka_topic_name": (c.c_char_p, (c.c_void_p,)),
    "rd_kafka_metadata": (c.c_int, (c.c_void_p, c.c_int, c.c_void_p, c.POINTER(c.POINTER(_Metadata)), c.c_int)),
    "rd_kafka_metadata_destroy": (None, (c.POINTER(_Metadata),)),
    "rd_kafka_message_errstr": (c.c_char_p, (c.c_void_p,)),
    "rd_kafka_last_error": (c.c_int, ()),
    "rd_kafka_err2str": (c.c_char_p, (c.c_int,)),
    "rd_kafka_error_string": (c.c_char_p, (c.c_void_p,)),
    "rd_kafka_error_destroy": (None, (c.c_void_p,)),
    "rd_kafka_version": (c.c_int, ()),
}


def library_path() -> str:
    """The file of the library: the wheel's own copy, or the system's where confluent-kafka was built against that.

    Raises:
        LogError: there is none.
    """
    package = Path(confluent_kafka.__file__).parent
    beside = [*package.parent.glob("confluent_kafka.libs/librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    found = str(beside[0]) if beside else find_library("rdkafka")
    if found is None:
        raise LogError("librdkafka is not there: expected it beside confluent-kafka or among the system's libraries")
    return found


@cache
def library() -> Any:
    """The library with its calls typed; each of them lets other threads of Python run.

    Raises:
        LogError: it is missing, or not the one that confluent-kafka runs on.
    """
    loaded = c.CDLL(library_path())
    for name, (result, arguments) in _CALLS.items():
        call = getattr(loaded, name)
        call.restype, call.argtypes = result, arguments
    ours, theirs = loaded.rd_kafka_version(), confluent_kafka.libversion()[1]
    if ours != theirs:
        raise LogError(f"librdkafka: expected version {theirs:#x}, which confluent-kafka runs on, found {ours:#x}")
    return loaded


def new_consumer(options: Mapping[str, Any], on_rebalance: Any) -> int:
    """A consumer's handle, made from options as confluent-kafka takes them.

    Args:
        on_rebalance: a `RebalanceCallback`, which the caller keeps alive as long as the handle.

    Raises:
        LogError: the client refuses an option.
    """
    lib, text = library(), c.create_string_buffer(_TEXT_BYTES)
    conf = lib.rd_kafka_conf_new()
    for name, value in options.items():
        given = str(value).lower() if isinstance(value, bool) else str(value)
        if lib.rd_kafka_conf_set(conf, name.encode(), given.encode(), text, _TEXT_BYTES) != _OK:
            lib.rd_kafka_conf_destroy(conf)
            raise LogError(f"the Kafka client refuses its options: {text.value.decode('utf-8', 'replace')}")
    lib.rd_kafka_conf_set_rebalance_cb(conf, on_rebalance)
    handle = lib.rd_kafka_new(_CONSUMER, conf, text, _TEXT_BYTES)
    if not handle:
        lib.rd_kafka_conf_destroy(conf)
        raise LogError(f"the Kafka client cannot start: {text.value.decode('utf-8', 'replace')}")
    lib.rd_kafka_poll_set_consumer(handle)
    return int(handle)


class PartitionListOf:
    """Partitions as the library takes them, inside a `with`."""

    def __init__(self, parts: Iterable[TopicPartition]) -> None:
        self._parts = list(parts)
        self._list: Any = None

    def __enter__(self) -> Any:
        lib = library()
        self._list = lib.rd_kafka_topic_partition_list_new(len(self._parts))
        for part in self._parts:
            lib.rd_kafka_topic_partition_list_add(self._list, part.topic.encode(), part.partition).contents.offset = part.offset
        return self._list

    def __exit__(self, *_: object) -> None:
        library().rd_kafka_topic_partition_list_destroy(self._list)


def partitions_in(given: Any) -> list[TopicPartition]:
    """A list of the library's as objects."""
    return [TopicPartition(e.topic.decode(), e.partition, e.offset) for e in (given.contents.elems[i] for i in range(given.contents.cnt))]


def partition_count(handle: int, topic: str, timeout_s: float) -> int:
    """How many partitions a topic has.

    Raises:
        LogError: Kafka does not answer, or does not know the topic.
    """
    lib = library()
    asked = lib.rd_kafka_topic_new(handle, topic.encode(), None)
    found = c.POINTER(_Metadata)()
    try:
        check(lib.rd_kafka_metadata(handle, 0, asked, c.byref(found), int(timeout_s * 1000)), f"the partitions of {topic} are not known")
        told = found.contents.topics[0]
        check(told.err, f"the partitions of {topic} are not known")
        return int(told.partition_cnt)
    finally:
        if found:
            lib.rd_kafka_metadata_destroy(found)
        lib.rd_kafka_topic_destroy(asked)


def check(code: int, failure: str) -> None:
    """Nothing where a call went well.

    Raises:
        LogError: its code says that it failed.
    """
    if code != _OK:
        raise LogError(f"{failure}: {library().rd_kafka_err2str(code).decode('utf-8', 'replace')}")


def check_error(error: int | None, failure: str) -> None:
    """The same for calls that answer with an object of an error, which is let go.

    Raises:
        LogError: there is one.
    """
    if error:
        lib = library()
        said = lib.rd_kafka_error_string(error).decode("utf-8", "replace")
        lib.rd_kafka_error_destroy(error)
        raise LogError(f"{failure}: {said}")
