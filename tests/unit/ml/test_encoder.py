"""The encoder: shapes, independence of what stands beside in a batch, and speed within reach."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import torch

from graph.features import FeatureState, TransactionColumns
from graph.neighbourhood import concatenate
from ml.encoder import EdgeMessages, Encoder, embed, embed_in_batches
from ml.network import EMBEDDING_DIM
from tests.unit.graph.streams import stream


def test_messages_give_mean_and_maximum_and_zero_to_the_unspoken() -> None:
    heard = EdgeMessages()(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 2]), 3)
    assert heard.tolist() == [[2.0, 3.0], [0.0, 0.0], [5.0, 5.0]]


def test_a_wallets_embedding_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    torch.manual_seed(0)
    encoder = Encoder().eval()
    near = FeatureState().observe(TransactionColumns.from_arrow(stream(100))).neighbourhoods
    assert near is not None
    together = embed(encoder, near)
    alone = embed(encoder, near.take(np.array([17])))
    assert together.shape == (len(near), EMBEDDING_DIM)
    assert np.allclose(together[17], alone[0], atol=1e-5)
    assert embed(encoder, concatenate([])).shape == (0, EMBEDDING_DIM)
    assert np.allclose(embed_in_batches(encoder, near), together, atol=1e-5)


def test_a_micro_batch_is_fast() -> None:
    """512 wallets within 0.5 s of processor time even on a busy machine; 2 to 12 ms were measured."""
    encoder = Encoder().eval()
    near = FeatureState().observe(TransactionColumns.from_arrow(stream(300))).neighbourhoods
    assert near is not None
    batch = near.take(np.arange(512) % len(near))
    embed(encoder, batch)
    start = time.process_time()
    embed(encoder, batch)
    assert time.process_time() - start < 0.5


def test_importing_it_warns_of_nothing() -> None:
    code = "import warnings; warnings.simplefilter('error', FutureWarning); import ml.encoder"
    subprocess.run([sys.executable, "-c", code], check=True)
