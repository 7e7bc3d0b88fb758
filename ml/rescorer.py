"""Scoring history again: the features that the scorer had, another model's judgement of them.

Features come from `graph.features` as they do live; only whoever drives this knows which transactions are asked for. Nothing is
published but `TransactionRescored`: embeddings are those of the model that serves.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.features import FEATURE_SET_VERSION, FeatureState, TransactionColumns
from ml.errors import PackageError
from ml.packaging import ServingModel, load_serving_encoder, serving_model
from ml.rows import scoring_rows_of
from ml.scorer import Scores, scored_events
from projections.work import Append
from schema_registry.catalog import SchemaCatalog
from schema_registry.record_codec import RecordCodec


class Rescorer:
    """One model over a feature state that its caller may also restate.

    Args:
        package: the bytes of a model package.
        sha256: what `ModelTrained` says of them.

    Raises:
        PackageError: the package is not what the log says, or was trained on another feature set than this code computes.
    """

    def __init__(self, catalog: SchemaCatalog, package: bytes, sha256: str) -> None:
        self._codec = RecordCodec(catalog)
        self._encoder, card = load_serving_encoder(package, sha256)
        self._model: ServingModel = serving_model(package, sha256)
        if card["feature_set_version"] != FEATURE_SET_VERSION:
            raise PackageError(
                f"{self._model.model_version} was trained on feature set {card['feature_set_version']}, this Tidemark computes"
                f" {FEATURE_SET_VERSION}: what it would say of its features means nothing. Train again"
            )
        self._takes_first_side = bool(card["scores_transactions"])
        self.state = FeatureState()

    @property
    def model_version(self) -> str:
        """The version that stands in every event."""
        return self._model.model_version

    def pass_over(self, table: pa.Table) -> None:
        """Count transactions that are not asked for."""
        self.state.observe(TransactionColumns.from_arrow(table), emit="none", neighbourhoods=False)

    def score(self, table: pa.Table) -> Append:
        """Count transactions in order of `_seq` and say what the model says of each as of it."""
        snapshot = self.state.observe(TransactionColumns.from_arrow(table))
        assert snapshot.neighbourhoods is not None
        found: NDArray[np.float64] = self._model.head.scores(scoring_rows_of(snapshot, self._encoder.embed(snapshot.neighbourhoods)))
        scores = Scores(found[:, 0], found[:, 1])
        return scored_events(
            self._codec, "TransactionRescored", table, snapshot, scores, self.model_version, takes_first_side=self._takes_first_side
        )
