"""Every feature has one name and one line, and the writers fill exactly the names."""

from __future__ import annotations

from graph.features_names import (
    CARD,
    FEATURES,
    ORDER,
    PARTIES,
    PATTERNS,
    PAYMENT,
    TOTALS,
    TRANSACTION,
    TWO_HOPS,
    WRITTEN,
)
from graph.features_party import N_OUTLINE, N_WITHOUT
from graph.features_state import N_EDGE, N_PARTY


def test_names_are_unique_and_documented() -> None:
    assert len({feature.name for feature in WRITTEN}) == len(WRITTEN)
    assert all(feature.doc for feature in WRITTEN)
    assert len(FEATURES) <= 200


def test_no_calendar_and_no_block() -> None:
    assert not [f.name for f in FEATURES if any(word in f.name.split("_") for word in ("block", "hour", "year", "month"))]


def test_blocks_are_as_wide_as_their_writers() -> None:
    """The widths that graph/features_vector.py returns; a writer out of step would shift every later name."""
    assert len(TRANSACTION) == N_EDGE + 1
    assert (len(PAYMENT), len(CARD), len(TOTALS), len(PATTERNS), len(ORDER)) == (5, 28, 50, 32, 16)
    assert len(PARTIES) == 5 * N_PARTY + 5 * N_WITHOUT
    assert len(TWO_HOPS) == 5 + 3 * N_OUTLINE
