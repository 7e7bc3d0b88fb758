"""The encoder at scoring time: the trained network's own numbers, without torch, whatever stands beside in a batch."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from graph.features import FeatureState, TransactionColumns
from graph.neighbourhood import Neighbourhoods, concatenate
from ml.encoder import Encoder, embed
from ml.errors import PackageError
from ml.network import EMBEDDING_DIM
from ml.packaging import load_serving_encoder, package
from ml.serving_encoder import ServingEncoder
from ml.training import TrainedModel
from tests.unit.graph.streams import stream


@pytest.fixture(scope="module")
def near() -> Neighbourhoods:
    """Of wallets with and without counterparties, with and without a second hop."""
    found = FeatureState().observe(TransactionColumns.from_arrow(stream(300))).neighbourhoods
    assert found is not None
    assert len(found.hops) > len(found.legs) > len(found)
    assert len(np.unique(found.hop_leg)) < len(found.legs)
    return found


def serving(encoder: Encoder) -> ServingEncoder:
    return ServingEncoder({name: value.numpy() for name, value in encoder.state_dict().items()})


def test_it_computes_what_the_trained_network_computes(near: Neighbourhoods) -> None:
    torch.manual_seed(3)
    encoder = Encoder().eval()
    encoder.standardise_on(near)
    mine, theirs = serving(encoder).embed(near), embed(encoder, near)
    assert mine.shape == (len(near), EMBEDDING_DIM)
    assert np.abs(theirs).std() > 0.01
    assert np.allclose(mine, theirs, atol=2e-6, rtol=1e-5)


def test_wallets_without_a_leg_and_legs_that_nobody_speaks_to_hear_zeros() -> None:
    encoder = Encoder().eval()
    blank = FeatureState().observe(TransactionColumns.from_arrow(stream(1))).neighbourhoods
    assert blank is not None
    alone = Neighbourhoods(blank.roots, blank.legs[:0], blank.leg_root[:0], blank.hops[:0], blank.hop_leg[:0])
    assert np.allclose(serving(encoder).embed(alone), embed(encoder, alone), atol=2e-6)
    assert np.allclose(serving(encoder).embed(blank), embed(encoder, blank), atol=2e-6)


def test_an_embedding_has_the_same_bits_in_any_batch(near: Neighbourhoods) -> None:
    encoder = serving(Encoder().eval())
    together = encoder.embed(near)
    for rows in (np.array([17]), np.arange(40, 90), np.array([5, 17, 5])):
        assert encoder.embed(near.take(rows)).tobytes() == together[rows].tobytes()
    assert encoder.embed(concatenate([])).shape == (0, EMBEDDING_DIM)


def test_a_package_gives_the_network_that_was_trained(model: TrainedModel) -> None:
    packed = package(model)
    encoder, card = load_serving_encoder(packed.data, packed.sha256)
    found = model.state.neighbourhoods_now(np.arange(50))
    assert np.allclose(encoder.embed(found), embed(model.encoder, found), atol=1e-5, rtol=1e-5)
    assert card["model_version"] == packed.model_version
    with pytest.raises(PackageError, match="expected sha256"):
        load_serving_encoder(packed.data, "0000")


def test_weights_of_another_shape_are_named() -> None:
    weights = {name: value.numpy() for name, value in Encoder().state_dict().items()}
    del weights["logit.bias"]
    weights["hop_in.weight"] = weights["hop_in.weight"][:, 1:]
    with pytest.raises(ValueError, match=r"hop_in\.weight: expected .* found .*; logit\.bias: expected \(1,\), found None"):
        ServingEncoder(weights)


def test_a_micro_batch_is_fast(near: Neighbourhoods) -> None:
    """512 wallets within 0.3 s of processor time even on a busy machine."""
    encoder = serving(Encoder().eval())
    batch = near.take(np.arange(512) % len(near))
    encoder.embed(batch)
    start = time.process_time()
    encoder.embed(batch)
    assert time.process_time() - start < 0.3


def test_the_scorer_starts_without_the_libraries_that_train() -> None:
    code = "import sys, ml.scorer, ml.packaging; print([name for name in ('torch', 'lightgbm', 'sklearn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
