"""The inductive graph network: a wallet's neighbourhood as of a transaction in, an embedding out, for any wallet, new
ones included.

Two rounds of message passing (torch-geometric): wallets two hops away speak to the counterparty of a leg, legs speak
to the wallet. Coordinate 0 of the embedding is the encoder's own log-odds, the others what it is made from. The scorer
runs the same network by `ml.serving_encoder`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph.features import FeatureState
from graph.neighbourhood import HOP_WIDTH, LEG_WIDTH, ROOT_WIDTH, Neighbourhoods
from ml.network import CLIP, EMBEDDING_DIM, HIDDEN

with warnings.catch_warnings():
    # While it is imported, torch-geometric compiles helpers by a way that torch says will go: nothing that a user could act on.
    warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
    from torch_geometric.nn import MessagePassing

DROPOUT: Final = 0.2
EMBED_ROWS: Final = 4096


class EdgeMessages(MessagePassing):  # type: ignore[misc]
    """Carry the states of `m` senders to `n` receivers and give each receiver their mean and maximum.

    A receiver that nobody speaks to gets zeros. Inductive in the sense of GraphSAGE (Hamilton et al. 2017,
    arXiv:1706.02216); mean and maximum together because either alone loses counts or extremes (Corso et al. 2020, PNA,
    arXiv:2004.05718).
    """

    def __init__(self) -> None:
        super().__init__(aggr=["mean", "max"], flow="source_to_target")

    def forward(self, senders: Tensor, receiver: Tensor, receivers: int) -> Tensor:
        """senders: [m, d]; receiver: int64 [m], row of the receiver; returns [receivers, 2 d]."""
        edge_index = torch.stack([torch.arange(len(receiver)), receiver])
        carried: Tensor = self.propagate(edge_index, x=(senders, None), size=(len(senders), receivers))
        return carried

    def message(self, x_j: Tensor) -> Tensor:
        """What a sender says is its state."""
        return x_j


class Encoder(nn.Module):
    """Neighbourhoods in, embeddings float32 [m, EMBEDDING_DIM] out. Inputs are standardised by buffers saved with
    the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        for name, width in (("root", ROOT_WIDTH), ("leg", LEG_WIDTH), ("hop", HOP_WIDTH)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        self.hop_in = nn.Linear(HOP_WIDTH, HIDDEN)
        self.leg_in = nn.Linear(LEG_WIDTH, HIDDEN)
        self.leg_mix = nn.Linear(3 * HIDDEN, HIDDEN)
        self.root_in = nn.Linear(ROOT_WIDTH, HIDDEN)
        self.root_mix = nn.Linear(3 * HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, EMBEDDING_DIM - 1)
        self.logit = nn.Linear(EMBEDDING_DIM - 1, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.messages = EdgeMessages()

    def standardise_on(self, near: Neighbourhoods) -> None:
        """Set the buffers from training neighbourhoods."""
        for name, rows in (("root", near.roots), ("leg", near.legs), ("hop", near.hops)):
            if len(rows):
                getattr(self, f"{name}_mean").copy_(torch.from_numpy(rows.mean(0)))
                getattr(self, f"{name}_scale").copy_(torch.from_numpy(1.0 / np.maximum(rows.std(0), 1e-3)))

    def forward(self, roots: Tensor, legs: Tensor, leg_root: Tensor, hops: Tensor, hop_leg: Tensor) -> Tensor:
        """Shapes as in `graph.neighbourhood.Neighbourhoods`; returns [m, EMBEDDING_DIM]."""
        hop = torch.relu(self.hop_in(self._standard("hop", hops)))
        spoken = self.messages(hop, hop_leg, len(legs))
        leg = torch.relu(self.leg_in(self._standard("leg", legs)))
        leg = self.dropout(torch.relu(self.leg_mix(torch.cat([leg, spoken], 1))))
        heard = self.messages(leg, leg_root, len(roots))
        root = torch.relu(self.root_in(self._standard("root", roots)))
        root = self.dropout(torch.relu(self.root_mix(torch.cat([root, heard], 1))))
        state = torch.tanh(self.out(root))
        return torch.cat([self.logit(state), state], 1)

    def _standard(self, name: str, rows: Tensor) -> Tensor:
        mean, scale = getattr(self, f"{name}_mean"), getattr(self, f"{name}_scale")
        return torch.clamp((rows - mean) * scale, -CLIP, CLIP)


def tensors(near: Neighbourhoods) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The encoder's arguments, sharing memory with the arrays."""
    return (
        torch.from_numpy(near.roots),
        torch.from_numpy(near.legs),
        torch.from_numpy(near.leg_root),
        torch.from_numpy(near.hops),
        torch.from_numpy(near.hop_leg),
    )


def embed(encoder: Encoder, near: Neighbourhoods) -> NDArray[np.float32]:
    """Embeddings float32 [m, EMBEDDING_DIM] of neighbourhoods; the same bits for the same batch."""
    if not len(near):
        return np.zeros((0, EMBEDDING_DIM), np.float32)
    encoder.eval()
    with torch.inference_mode():
        embeddings: NDArray[np.float32] = encoder(*tensors(near)).numpy()
    return embeddings


def embed_in_batches(encoder: Encoder, near: Neighbourhoods) -> NDArray[np.float32]:
    """The same for many, EMBED_ROWS at a time."""
    parts = [embed(encoder, near.take(rows)) for rows in _batches(len(near))]
    return np.concatenate(parts) if parts else np.zeros((0, EMBEDDING_DIM), np.float32)


def embed_all(state: FeatureState, encoder: Encoder) -> tuple[list[str], NDArray[np.float32]]:
    """Embeddings of every wallet that the state has seen, as of everything observed: wallet ids and float32 [n,
    EMBEDDING_DIM].
    """
    ids = list(state.wallet_ids)
    parts = [embed(encoder, state.neighbourhoods_now(rows)) for rows in _batches(len(ids))]
    return ids, np.concatenate(parts) if parts else np.zeros((0, EMBEDDING_DIM), np.float32)


def _batches(n: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, EMBED_ROWS):
        yield np.arange(start, min(start + EMBED_ROWS, n))
