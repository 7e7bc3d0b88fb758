"""What logistic regression sees of a transaction: what it says of itself, and nothing that must be remembered.

The one definition for training and scoring. Names and categories go through the hashing trick (Weinberger et al. 2009): the vector is
as long whatever a stream may name, and a category that training never saw is no error.
"""

from __future__ import annotations

from math import pi

from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import HashingTF, VectorAssembler
from pyspark.sql import Column, DataFrame
from pyspark.sql.functions import abs, array, coalesce, col, concat, cos, dayofweek, hour, least, lit, log1p, sin, when

COMPONENTS = tuple(f"v{i}" for i in range(1, 29))
CATEGORIES = (
    "network",
    "kind",
    "status",
    "asset",
    "counter_asset",
    "merchant_category",
    "location",
    "country",
    "payment_method",
    "weekday",
)
NUMBERS = ("log_amount", "log_fee", "hour_sin", "hour_cos", "names_source", "names_target", "is_card", *COMPONENTS)
WIDTH = 1 << 12
"""Length of the hashed vector: some hundreds of categories in use collide in a few places."""
_MOST_CHARACTERS = 64  # of a category; a longer one says no more
_NONE = "none"
_MOST = 1e30


def with_features(rows: DataFrame) -> DataFrame:
    """Add `terms` (array of `<category>=<value>`) and the columns of `NUMBERS` to rows with a column `record`; none is ever null."""
    terms = array(*(concat(lit(f"{name}="), _category(name)) for name in CATEGORIES))
    return rows.select("*", terms.alias("terms"), *(_number(name).alias(name) for name in NUMBERS))


def pipeline(iterations: int = 100, regularisation: float = 1e-4) -> Pipeline:
    """The model before it is trained: hashing, then logistic regression on standardised features. It has no randomness.

    `HashingTF` over one array, not `FeatureHasher` over forty columns: the same vector, and a third of the time.
    """
    hashing = HashingTF(inputCol="terms", outputCol="hashed", numFeatures=WIDTH, binary=True)
    assembler = VectorAssembler(inputCols=[*NUMBERS, "hashed"], outputCol="features")
    regression = LogisticRegression(
        maxIter=iterations, regParam=regularisation, featuresCol="features", labelCol="label", rawPredictionCol=""
    )
    return Pipeline(stages=[hashing, assembler, regression])


def _category(name: str) -> Column:
    if name == "weekday":
        return coalesce(dayofweek("record.occurred_at").cast("string"), lit(_NONE))
    path = f"record.payment.{name}" if name in ("merchant_category", "location", "country", "payment_method") else f"record.{name}"
    return coalesce(col(path).substr(1, _MOST_CHARACTERS), lit(_NONE))


def _number(name: str) -> Column:
    if name in COMPONENTS:
        component = col(f"record.card_features.{name}")
        return coalesce(when(abs(component) < _MOST, component), lit(0.0))  # neither infinite nor no number
    if name.startswith("hour_"):
        turn = hour("record.occurred_at") * (2 * pi / 24)
        return coalesce(sin(turn) if name == "hour_sin" else cos(turn), lit(0.0))
    if name.startswith("names_"):
        return col(f"record.{name.removeprefix('names_')}_wallet_id").isNotNull().cast("double")
    if name == "is_card":
        return col("record.card_features").isNotNull().cast("double")
    # A foreign producer's amount may be below zero, where the logarithm has no value.
    amount = col(f"record.{name.removeprefix('log_')}").cast("double")
    return coalesce(log1p(least(coalesce(amount, lit(0.0)), lit(_MOST))), lit(0.0))
