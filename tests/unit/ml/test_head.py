"""The head: absent embeddings say nothing, and the mix trusts what held."""

from __future__ import annotations

import numpy as np

from ml.head import Mix, fit_mix, mixed


def test_an_absent_embedding_leaves_the_trees_alone() -> None:
    plain = np.array([1.0, -2.0])
    nothing = np.full(2, np.nan, np.float32)
    assert mixed(Mix(1.0, 0.5, 0.5), plain, nothing, nothing).tolist() == plain.tolist()


def test_the_mix_trusts_an_encoder_that_knows_and_ignores_one_that_does_not() -> None:
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 2000)
    plain = draw.normal(size=2000)
    knows = (4 * label - 2 + draw.normal(size=2000)).astype(np.float32)
    noise = draw.normal(size=2000).astype(np.float32)
    mix = fit_mix(plain, knows, noise, label, np.ones(2000))
    assert mix.own > 1
    assert mix.partner < 0.3
    assert fit_mix(plain, knows, noise, np.ones(2000, np.int64), np.ones(2000)) == Mix()
