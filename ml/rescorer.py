"""Scoring history again: the features that the scorer had, another model's judgement of them.

Features come from `graph.features` as they do live; only whoever drives this knows which transactions are asked for. Nothing is
published but `TransactionRescored`: embeddings are those of the model that serves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph.features import FEATURE_SET_VERSION, FeatureState, Snapshot, TransactionColumns
from ml.errors import PackageError
from ml.packaging import ServingModel, load_serving_encoder, serving_model
from ml.rows import scoring_rows_of
from ml.scorer import ScoreEncoder, Scores, scored_events, scored_rows
from projections.work import Append
from schema_registry.catalog import SchemaCatalog


class PackagedModel:
    """A model of a package, network and head, without the endpoint.

    Args:
        package: the bytes of a model package.
        sha256: what `ModelTrained` says of them.

    Raises:
        PackageError: the package is not what the log says, or was trained on another feature set than this code computes.
    """

    def __init__(self, package: bytes, sha256: str) -> None:
        self._encoder, card = load_serving_encoder(package, sha256)
        self._model: ServingModel = serving_model(package, sha256)
        if card["feature_set_version"] != FEATURE_SET_VERSION:
            raise PackageError(
                f"{self._model.model_version} was trained on feature set {card['feature_set_version']}, this Tidemark computes"
                f" {FEATURE_SET_VERSION}: what it would say of its features means nothing. Train again"
            )
        self.takes_first_side = bool(card["scores_transactions"])

    @property
    def model_version(self) -> str:
        """The version that stands in every event."""
        return self._model.model_version

    def scores(self, snapshot: Snapshot) -> Scores:
        """What it says of each row of a snapshot that has its neighbourhoods."""
        assert snapshot.neighbourhoods is not None
        found: NDArray[np.float64] = self._model.head.scores(scoring_rows_of(snapshot, self._encoder.embed(snapshot.neighbourhoods)))
        return Scores(found[:, 0], found[:, 1])


class Rescorer:
    """One model over a feature state that its caller may also restate. Arguments and errors as `PackagedModel`."""

    def __init__(self, catalog: SchemaCatalog, package: bytes, sha256: str) -> None:
        self._encoder = ScoreEncoder(catalog, "TransactionRescored")
        self._model = PackagedModel(package, sha256)
        self.state = FeatureState()

    @property
    def model_version(self) -> str:
        """The version that stands in every event."""
        return self._model.model_version

    def pass_over(self, table: pa.Table) -> None:
        """Count transactions that are not asked for."""
        self.state.observe(TransactionColumns.from_arrow(table), emit="none", neighbourhoods=False)

    def score(self, table: pa.Table) -> Append:
        """Count transactions in order of `_seq` and say what the model says of each as of it, as events."""
        snapshot, scores = self._judged(table)
        return scored_events(self._encoder, table, snapshot, scores, self.model_version, takes_first_side=self._model.takes_first_side)

    def rows(self, table: pa.Table) -> list[dict[str, Any]]:
        """The same, as the fields of those events."""
        snapshot, scores = self._judged(table)
        return scored_rows(table, snapshot, scores, self.model_version, takes_first_side=self._model.takes_first_side)

    def _judged(self, table: pa.Table) -> tuple[Snapshot, Scores]:
        snapshot = self.state.observe(TransactionColumns.from_arrow(table))
        return snapshot, self._model.scores(snapshot)
