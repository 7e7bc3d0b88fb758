"""Trains the pipeline on the archive: on the part before a cut, for judging on the rest, and on all of it, to be saved.

Result: the model's version, what it was trained on, and a file of labels and scores of the later part for whoever judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql.functions import coalesce, col, greatest, lit, max_by, when

from infra.spark.jobs import channel, session, wire
from infra.spark.jobs.features import pipeline, with_features

LEAST = 20
"""Labelled transactions of each class, before the cut: below, nothing can be learned."""


def train(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """See the module."""
    spark = session.session(spec, "train")
    tell("progress", stage="reading the archive")
    transactions = wire.decoded(
        session.archived(spark, spec, "transaction-events"), spec["schemas"], "TransactionRecorded", spec["latest"]["TransactionRecorded"]
    ).withColumn("seq", wire.seq_of(name="name"))
    usable = transactions.where(col("is_ours") & col("reason").isNull() & col("seq").isNotNull() & (col("seq") < spec["end_seq"]))
    rows = with_features(_labelled(usable.select("seq", "record"), _labels(spark, spec))).drop("record").persist()
    counts = {bool(row["is_early"]): (row["n"], row["fraud"]) for row in _counts(rows, spec["cut_seq"])}
    early, late = counts.get(True, (0, 0)), counts.get(False, (0, 0))
    for name, (n, fraud), least in (("before", early, LEAST), ("after", late, 1)):
        if min(fraud, n - fraud) < least:
            raise channel.Refused(
                f"{n} labelled transactions lie {name} the cut at seq {spec['cut_seq']}, {fraud} of them fraud: expected at least {least}"
                " of each class; ingest more labels, or move the cut with --share"
            )
    tell("progress", stage="learning, for judging")
    is_early = col("seq") < spec["cut_seq"]
    challenger = pipeline().fit(rows.where(is_early))
    tell("progress", stage="judging")
    judged = challenger.transform(rows.where(~is_early)).select("seq", "label", _score().alias("challenger"))
    if spec.get("champion"):
        champion = PipelineModel.load(spec["champion"]).transform(rows.where(~is_early)).select("seq", _score().alias("champion"))
        judged = judged.join(champion, "seq")
    pq.write_table(judged.orderBy("seq").toArrow(), spec["judged"])
    tell("progress", stage="learning, on all of it")
    final = pipeline().fit(rows)
    version = _version(final)
    place = f"{spec['models']}/{version}/pipeline-{uuid4().hex[:12]}"  # never over one that may be scoring: equal numbers have one version
    final.write().save(place)
    spark.stop()
    return {
        "model_version": version,
        "trained_on": early[0] + late[0],
        "fraud": early[1] + late[1],
        "judged_on": late[0],
        "pipeline": place,
    }


def _labels(spark: Any, spec: dict[str, Any]) -> tuple[DataFrame, DataFrame]:
    """Labels of wallets and of transactions by id, the last one given of each, `unknown` left out."""
    found = []
    events = session.archived(spark, spec, "wallet-events")
    for contract, name in (("WalletLabelled", "wallet_id"), ("TransactionLabelled", "tx_id")):
        rows = wire.decoded(events, spec["schemas"], contract, spec["latest"][contract]).where(col("is_ours") & col("reason").isNull())
        last = rows.groupBy(col(f"record.{name}").alias("id")).agg(max_by("record.label", "offset").alias("label"))
        found.append(last.where(col("label").isin("illicit", "licit")).select("id", (col("label") == "illicit").cast("int").alias("label")))
    return found[0], found[1]


def _labelled(transactions: DataFrame, labels: tuple[DataFrame, DataFrame]) -> DataFrame:
    """Those with a label: their own where they have one; else fraud where a wallet of theirs is, honest where one is known to be."""
    wallets, own = labels

    def of(name: str) -> DataFrame:
        return wallets.select(col("id").alias(f"{name}_id"), col("label").alias(f"{name}_label"))

    found = transactions
    for name in ("source", "target"):
        found = found.join(of(name), col(f"record.{name}_wallet_id") == col(f"{name}_id"), "left")
    found = found.join(own.select(col("id").alias("own_id"), col("label").alias("own_label")), col("record.tx_id") == col("own_id"), "left")
    wallet_label = when(
        col("source_label").isNotNull() | col("target_label").isNotNull(),
        greatest(coalesce("source_label", lit(0)), coalesce("target_label", lit(0))),
    )
    return found.select("seq", "record", coalesce("own_label", wallet_label).cast("double").alias("label")).where(col("label").isNotNull())


def _counts(rows: DataFrame, cut_seq: int) -> list[Any]:
    from pyspark.sql.functions import count, sum

    grouped = rows.groupBy((col("seq") < cut_seq).alias("is_early"))
    return list(grouped.agg(count("*").alias("n"), sum("label").cast("long").alias("fraud")).collect())


def _score() -> Any:
    return vector_to_array("probability").getItem(1)


def _version(model: PipelineModel) -> str:
    """A name that follows from the model's numbers."""
    regression = model.stages[-1]
    numbers = [*regression.coefficients.toArray().tolist(), regression.intercept]
    return "lr-" + hashlib.sha256(",".join(float(number).hex() for number in numbers).encode()).hexdigest()[:12]


if __name__ == "__main__":
    channel.run(train)
