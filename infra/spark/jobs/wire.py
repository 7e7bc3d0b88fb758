"""Our Avro in Spark: records framed as the registry's clients frame them, read with the schema that they were written with.

Spark's own `from_avro` knows nothing of the frame (a zero byte and four bytes of schema id before the value) and takes one schema. Fed
framed bytes, or a schema that is not the writer's, it gives null or, worse, another value, and says nothing. Here each record is read by
the schema that its id names, as the latest version of its contract (Avro's own resolution), and what cannot be read is refused by name.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql.avro.functions import from_avro
from pyspark.sql.functions import coalesce, col, concat, conv, get, hex, length, lit, substring, when
from pyspark.sql.functions import filter as those_of

HEADER_LENGTH = 5
SEQ = "seq"
_END = 8


def decoded(frame: DataFrame, schemas: Sequence[Mapping[str, Any]], contract: str, latest: str) -> DataFrame:
    """Add `record` (the decoded value), `reason` and `message` (why there is none, by the engine's own codes; both null where there is one,
    or where the record is of another contract), and `is_ours`.

    Args:
        frame: rows with a binary `value`.
        schemas: every schema id that the code knows: `id`, `contract`, and of the contract wanted the `schema` as JSON.
        contract: the one wanted.
        latest: its latest version as JSON, which every value is read as.
    """
    ours = [one for one in schemas if one["contract"] == contract]
    others = [one["id"] for one in schemas if one["contract"] != contract]
    # A decoder stops where the value ends and is content with what follows. Eight bytes that nobody can guess stand behind each value and
    # are read as a field of their own: only a value that ends where it should leaves them whole.
    end = secrets.token_bytes(_END)
    body = concat(substring(col("value"), HEADER_LENGTH + 1, 2_147_483_647), lit(end))
    schema_id = when(_is_framed(), conv(hex(substring(col("value"), 2, 4)), 16, 10).cast("long"))
    framed = frame.withColumn("schema_id", schema_id)

    def read(one: Mapping[str, Any]) -> Column:
        return from_avro(body, _ended(one["schema"]), {"avroSchema": _ended(latest), "mode": "PERMISSIVE"})

    first = when(col("schema_id") == ours[0]["id"], read(ours[0]))
    value = reduce(lambda found, one: found.when(col("schema_id") == one["id"], read(one)), ours[1:], first)
    found = framed.withColumn("ended", value).withColumn(
        "is_ours", coalesce(col("schema_id").isin([one["id"] for one in ours]), lit(False))
    )
    # A field that has no null in the contract and comes as null was not read: the common recipe passes just this on.
    is_broken = reduce(
        lambda a, b: a | b, [col(f"ended.record.{name}").isNull() for name in _required(latest)], col("ended.end") != lit(end)
    )
    reason = (
        when(col("value").isNull(), lit("no_value"))
        .when(~_is_framed(), lit("not_framed"))
        .when(col("schema_id").isin(others) if others else lit(False), lit(None))
        .when(~col("is_ours"), lit("unknown_schema_id"))
        .when(coalesce(is_broken, lit(True)), lit("malformed"))
    )
    message = (
        when(col("reason") == "no_value", lit("expected a value, found none"))
        .when(col("reason") == "unknown_schema_id", lit(f"expected a schema id of a known contract of {contract}"))
        .when(col("reason") == "not_framed", lit("expected a zero byte and a schema id before the value"))
        .when(col("reason") == "malformed", lit("the bytes are no value of the schema that they name"))
    )
    with_record = found.withColumn("record", col("ended.record")).withColumn("reason", reason)
    return with_record.withColumn("message", message).drop("ended")


def seq_of(headers: str = "headers", name: str = "key") -> Column:
    """The seq header of a record, of several the first; null where it has none of eight bytes."""
    named = those_of(col(headers), lambda header: (header[name] == SEQ) & (length(header["value"]) == 8))
    return conv(hex(get(named, lit(0))["value"]), 16, 10).try_cast("long")


def _is_framed() -> Column:
    return (length(col("value")) >= HEADER_LENGTH) & (substring(col("value"), 1, 1) == lit(b"\x00"))


def _ended(schema: str) -> str:
    """The schema of a value and the bytes behind it."""
    end = {"type": "fixed", "name": "End", "namespace": "tidemark.spark", "size": _END}
    fields = [{"name": "record", "type": json.loads(schema)}, {"name": "end", "type": end}]
    return json.dumps({"type": "record", "name": "Ended", "namespace": "tidemark.spark", "fields": fields})


def _required(latest: str) -> list[str]:
    """The fields that are never null by the contract."""
    return [field["name"] for field in json.loads(latest)["fields"] if not isinstance(field["type"], list)]
