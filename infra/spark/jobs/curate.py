"""The curated table's rows from the archive: decoded, flattened, in Parquet below a folder of the bucket, one day a folder.

Writes files and commits nothing: whoever started it registers them, with the position that they are true up to, in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from pyspark.sql import Column, Observation
from pyspark.sql.functions import coalesce, col, count, is_valid_utf8, lit, timestamp_millis, to_date, when, year

from infra.spark.jobs import channel, session, wire

TOPIC, CONTRACT = "transaction-events", "TransactionRecorded"
DAY = "occurred_day"
_ROWS_OF_A_FILE = 5_000_000
_REFUSED_MOST = 1_000_000


def curate(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """See the module. Result: rows written, and the place of each record that could not be read (`partition`, `offset`)."""
    spark = session.session(spec, "curate")
    for key, value in {
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.files.maxRecordsPerFile": str(_ROWS_OF_A_FILE),
        # Nobody looks before the job has ended: what a task has written may be in its place at once, and is not moved a second time. A
        # task that is tried again on a cluster could leave its rows twice: there they move.
        "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "2" if str(spec.get("master")).startswith("local[") else "1",
    }.items():
        spark.conf.set(key, value)
    tell("progress", stage="curating")
    until = {int(partition): int(offset) for partition, offset in spec["position"].items()}
    records = session.archived(spark, spec, TOPIC)
    inside = reduce(lambda found, one: found | ((col("partition") == one[0]) & (col("offset") < one[1])), until.items(), lit(False))
    found = wire.decoded(records.where(inside), spec["schemas"], CONTRACT, spec["latest"][CONTRACT])
    found = found.withColumn("seq", wire.seq_of(name="name")).withColumn("reason", _reason(spec["texts"]))
    seen = Observation("curate")
    counted = found.observe(seen, count(when(col("reason").isNull() & col("is_ours"), 1)).alias("rows"), count("reason").alias("refused"))
    rows = counted.where(col("reason").isNull() & col("is_ours")).select(
        *_columns(spec["leaves"]), to_date("record.occurred_at").alias(DAY)
    )
    rows.repartition(DAY).write.partitionBy(DAY).parquet(spec["out"])
    refused: list[list[int]] = []
    if seen.get["refused"]:
        tell("progress", stage="looking for what could not be read")
        bad = found.where(col("reason").isNotNull()).select("partition", "offset").limit(_REFUSED_MOST + 1).collect()
        if len(bad) > _REFUSED_MOST:
            raise channel.Refused(f"more than {_REFUSED_MOST} records of the archive cannot be read: that is no table of this topic")
        refused = [[row["partition"], row["offset"]] for row in bad]
    result = {"rows": seen.get["rows"], "refused": refused}
    spark.stop()
    return result


def _columns(leaves: list[str]) -> list[Column]:
    """The table's columns: the contract's leaves, then the coordinates, as `projections.curated.table` has them."""
    return [
        *(col(f"record.{path}").alias(path.replace(".", "_")) for path in leaves),
        # Never null, which Spark believes only where it sees a literal: the table demands these columns.
        coalesce(col("topic"), lit("")).alias("log_topic"), coalesce(col("partition"), lit(0)).alias("log_partition"),
        coalesce(col("offset"), lit(0).cast("long")).alias("log_offset"), when(col("seq") >= 0, col("seq")).alias("seq"),
        coalesce(timestamp_millis("timestamp_ms"), timestamp_millis(lit(0))).alias("ingested_at"),
    ]  # fmt: skip


def _reason(texts: list[str]) -> Column:
    """Why a record gives no row, what the engine refuses included: text that is none, and days that no calendar has."""
    is_text = reduce(lambda a, b: a & b, [is_valid_utf8(f"record.{path}") | col(f"record.{path}").isNull() for path in texts])
    return (
        when(col("reason").isNotNull(), col("reason"))
        .when(col("is_ours") & ~is_text, lit("malformed"))
        .when(col("is_ours") & ~year("record.occurred_at").between(1, 9999), lit("time_out_of_range"))
    )


if __name__ == "__main__":
    channel.run(curate)
