"""From a snapshot to scoring rows: the one place that says where embeddings stand and where they do not exist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph.features import Snapshot
from ml.head import scoring_rows
from ml.network import EMBEDDING_DIM


def scoring_rows_of(snapshot: Snapshot, own: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows float32 [m, ROW_WIDTH] for the endpoint, in the snapshot's order.

    Arguments: own: float32 [m, EMBEDDING_DIM], the encoder's output for the snapshot's neighbourhoods. A row without a
    wallet has no embedding of its own, a transaction with one wallet has no partner's: NaN, never a stand-in.
    """
    named = snapshot.wallet >= 0
    mine = np.where(named[:, None], own, np.float32(np.nan))
    partner = snapshot.partner()
    has = partner >= 0
    theirs = np.full((len(partner), EMBEDDING_DIM), np.nan, np.float32)
    theirs[has] = mine[partner[has]]
    return scoring_rows(snapshot.features, mine, theirs)
