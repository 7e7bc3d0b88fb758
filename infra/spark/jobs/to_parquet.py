"""The topic to Parquet by Structured Streaming, as one would write it: what `make bench-spark` holds the engine against.

`raw`: records as they are. `decoded`: our Avro in columns, a folder a day, as the curated table has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.functions import col, to_date

from infra.spark.jobs import channel, session, wire
from infra.spark.jobs.curate import CONTRACT, DAY, TOPIC


def to_parquet(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """See the module. Result: `records`, `seconds` from the query's start to its end, and the same without the first micro-batch, in
    which Java compiles (`steady_records`, `steady_seconds`)."""
    spark = session.session(spec, "to-parquet")
    spark.conf.set("spark.sql.parquet.compression.codec", "zstd")
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    source = session.stream(spark, spec, TOPIC, dict.fromkeys(range(spec["partitions"]), -2), spec["batch"])
    rows = _decoded(source, spec) if spec["decodes"] else source.select("partition", "offset", "timestamp", "key", "headers", "value")
    writer = rows.writeStream.format("parquet").option("path", spec["out"]).option("checkpointLocation", str(Path(spec["scratch"]) / "at"))
    if spec["decodes"]:
        writer = writer.partitionBy(DAY)
    began = time.monotonic()
    query = writer.trigger(availableNow=True).start()
    query.awaitTermination()
    seconds = time.monotonic() - began
    batches = [(one["numInputRows"], one["batchDuration"] / 1000) for one in query.recentProgress if one["numInputRows"]]
    spark.stop()
    return {
        "records": sum(rows for rows, _ in batches), "seconds": seconds,
        "steady_records": sum(rows for rows, _ in batches[1:]), "steady_seconds": sum(took for _, took in batches[1:]),
    }  # fmt: skip


def _decoded(source: DataFrame, spec: dict[str, Any]) -> DataFrame:
    found = wire.decoded(source, spec["schemas"], CONTRACT, spec["latest"][CONTRACT]).withColumn("seq", wire.seq_of())
    leaves = (col(f"record.{path}").alias(path.replace(".", "_")) for path in spec["leaves"])
    return found.where(col("reason").isNull()).select(
        *leaves, col("topic").alias("log_topic"), col("partition").alias("log_partition"), col("offset").alias("log_offset"), "seq",
        col("timestamp").alias("ingested_at"), to_date("record.occurred_at").alias(DAY),
    )  # fmt: skip


if __name__ == "__main__":
    channel.run(to_parquet)
