"""A Spark session of a spec: on the loopback address alone, in UTC, with S3 and Kafka reached as the spec says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, BinaryType, IntegerType, LongType, StringType, StructField, StructType

ARCHIVED = StructType(
    [
        StructField("partition", IntegerType()),
        StructField("offset", LongType()),
        StructField("timestamp_ms", LongType()),
        StructField("key", BinaryType()),
        StructField("headers", ArrayType(StructType([StructField("name", StringType()), StructField("value", BinaryType())]))),
        StructField("value", BinaryType()),
    ]
)
"""Columns of the archive's objects (`projections.archive.SCHEMA`)."""


def session(spec: Mapping[str, Any], name: str) -> SparkSession:
    """Start Spark for a job."""
    builder = SparkSession.builder.appName(f"tidemark-{name}").config("spark.sql.session.timeZone", "UTC")
    # A transaction's nested fields and its features are more than the hundred from which Spark interprets instead of compiling.
    builder = builder.config("spark.sql.codegen.maxFields", "1000")
    # Where spark-submit starts the job (EMR Serverless), master, memory and connectors are its own business.
    if spec.get("master"):
        here = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
        # Executors elsewhere fetch the connectors from the driver, which they must reach.
        there = {"spark.jars": spec["class_path"].replace(":", ","), "spark.executor.memory": spec["memory"]}
        local = {
            **(here if spec["master"].startswith("local[") else there),
            "spark.master": spec["master"],
            "spark.driver.memory": spec["memory"],
            "spark.driver.extraClassPath": spec["class_path"],
            "spark.ui.enabled": "false",
            "spark.local.dir": spec["scratch"],
            "spark.sql.warehouse.dir": spec["scratch"],
            # More tasks than cores only cost their starts where all data is small.
            "spark.sql.shuffle.partitions": str(spec["cores"]),
            "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={spec['scratch']} -Dderby.system.home={spec['scratch']}",
        }
        for key, value in local.items():
            builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    _reach_s3(spark, spec.get("s3") or {})
    return spark


def archived(spark: SparkSession, spec: Mapping[str, Any], topic: str) -> DataFrame:
    """Every record of a topic that the archive holds: columns of `ARCHIVED`, `topic` first."""
    from pyspark.sql.functions import lit

    # Without partition discovery: the folder's name would take the place of the column.
    read = spark.read.schema(ARCHIVED).option("recursiveFileLookup", "true").option("pathGlobFilter", "*.parquet")
    try:
        found = read.parquet(f"{spec['archive']}/{topic}/")
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        found = spark.createDataFrame([], ARCHIVED)  # nothing of this topic was archived yet
    return found.select(lit(topic).alias("topic"), "*")


def stream(spark: SparkSession, spec: Mapping[str, Any], topic: str, starts: Mapping[int, int], most: int) -> DataFrame:
    """The topic as a stream of committed records, from an offset of each partition on."""
    import json

    reader = spark.readStream.format("kafka").options(**{f"kafka.{key}": value for key, value in spec["kafka"].items()})
    options = {
        "subscribe": topic,
        "startingOffsets": json.dumps({topic: {str(partition): offset for partition, offset in sorted(starts.items())}}),
        "kafka.isolation.level": "read_committed",
        "includeHeaders": "true",
        "failOnDataLoss": "true",
        "maxOffsetsPerTrigger": str(most),
        # The defaults ask for 500 records at a time, and wait half a second where only a transaction's marker is left: a third of the
        # rate.
        "kafka.max.poll.records": "20000",
        "kafka.max.partition.fetch.bytes": str(8 << 20),
        "kafka.fetch.max.wait.ms": "20",
    }
    return reader.options(**options).load()


def _reach_s3(spark: SparkSession, given: Mapping[str, str]) -> None:
    # Set here, never with the builder: what that is told stands on the command line of a process.
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    settings = {"fs.s3a.connection.ssl.enabled": "true", "fs.s3a.change.detection.mode": "none"}
    if given.get("endpoint"):
        settings |= {
            "fs.s3a.endpoint": given["endpoint"],
            "fs.s3a.path.style.access": "true",
            "fs.s3a.connection.ssl.enabled": str(given["endpoint"].startswith("https")).lower(),
        }
    if given.get("region"):
        settings["fs.s3a.endpoint.region"] = given["region"]
    if given.get("access_key"):
        settings |= {
            "fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
            "fs.s3a.access.key": given["access_key"],
            "fs.s3a.secret.key": given["secret_key"],
        }
    for key, value in settings.items():
        hadoop.set(key, value)
