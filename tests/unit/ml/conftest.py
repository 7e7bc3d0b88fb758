"""One small model for all tests of the learner: training it is the slow part."""

from __future__ import annotations

import pytest

from ml.training import Cut, Labels, TrainedModel, train
from tests.unit.ml.labelled import KNOWN_AT, labelled_stream


@pytest.fixture(scope="session")
def model() -> TrainedModel:
    """Trained on 60 labelled wallets."""
    table, labels = labelled_stream()
    return train([table], Labels(labels), Cut(len(table), KNOWN_AT), seed=1)
