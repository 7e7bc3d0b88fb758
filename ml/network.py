"""Sizes of the graph network that its two readers share: `ml.encoder` trains it, `ml.serving_encoder` runs it."""

from __future__ import annotations

from typing import Final

EMBEDDING_DIM: Final = 32
HIDDEN: Final = 48
CLIP: Final = 5.0  # standard deviations: a sentinel or an outlier must not drown the rest
