"""The encoder at scoring time: the same network and weights as `ml.encoder`, as one compiled loop without torch.

A micro-batch of a few transactions is all overhead in torch, and importing it costs a worker nine seconds and 640 MiB. Each
wallet is computed on its own and in a fixed order, so its embedding has the same bits whatever stands beside it in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from graph.neighbourhood import HOP_WIDTH, LEG_WIDTH, ROOT_WIDTH, Neighbourhoods
from ml.network import CLIP, EMBEDDING_DIM, HIDDEN

_Floats = NDArray[np.float32]
_Layer = tuple[_Floats, _Floats]  # the weight by input and output, then the bias; of an input its mean and its scale
_Inputs = tuple[_Layer, _Layer, _Layer]
_Layers = tuple[_Layer, _Layer, _Layer, _Layer, _Layer, _Layer, _Layer]

_SHAPES = {
    "hop_in": (HIDDEN, HOP_WIDTH),
    "leg_in": (HIDDEN, LEG_WIDTH),
    "leg_mix": (HIDDEN, 3 * HIDDEN),
    "root_in": (HIDDEN, ROOT_WIDTH),
    "root_mix": (HIDDEN, 3 * HIDDEN),
    "out": (EMBEDDING_DIM - 1, HIDDEN),
    "logit": (1, EMBEDDING_DIM - 1),
}
_WIDTHS = {"hop": HOP_WIDTH, "leg": LEG_WIDTH, "root": ROOT_WIDTH}


class ServingEncoder:
    """Embeds neighbourhoods with trained weights.

    Args:
        weights: the tensors of `ml.encoder.Encoder.state_dict()` by name, float32.

    Raises:
        ValueError: a tensor is missing or of another shape; the message names each.
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        expected = _expected()
        found = {name: weights[name].shape if name in weights else None for name in expected}
        wrong = [f"{name}: expected {shape}, found {found[name]}" for name, shape in expected.items() if found[name] != shape]
        if wrong:
            raise ValueError("; ".join(wrong))

        def pair(first: str, second: str) -> _Layer:
            return np.array(weights[first].T, np.float32, order="C"), np.array(weights[second], np.float32)

        hop, leg, root = (pair(f"{name}_mean", f"{name}_scale") for name in _WIDTHS)
        self._inputs: _Inputs = hop, leg, root
        hop_in, leg_in, leg_mix, root_in, root_mix, out, logit = (pair(f"{name}.weight", f"{name}.bias") for name in _SHAPES)
        self._layers: _Layers = hop_in, leg_in, leg_mix, root_in, root_mix, out, logit

    @classmethod
    def blank(cls) -> Self:
        """One with weights of zero: what it takes to compile the loop."""
        return cls({name: np.zeros(shape, np.float32) for name, shape in _expected().items()})

    def embed(self, near: Neighbourhoods) -> NDArray[np.float32]:
        """Embeddings float32 [m, EMBEDDING_DIM] of neighbourhoods whose legs and hops are sorted by their owners, as all are."""
        embeddings = np.empty((len(near), EMBEDDING_DIM), np.float32)
        _embed(near.roots, near.legs, near.leg_root, near.hops, near.hop_leg, self._inputs, self._layers, embeddings)
        return embeddings


def _expected() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in _SHAPES.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in _SHAPES.items()}
    return shapes | {f"{name}_{part}": (width,) for name, width in _WIDTHS.items() for part in ("mean", "scale")}


@njit(cache=True)
def _standard(x: _Floats, how: _Layer, out: _Floats) -> None:
    """Standard deviations from the mean, cut; NaN stays NaN."""
    mean, scale = how
    for i in range(len(x)):
        value = (x[i] - mean[i]) * scale[i]
        out[i] = CLIP if value > CLIP else -CLIP if value < -CLIP else value


@njit(cache=True)
def _dense(x: _Floats, layer: _Layer, out: _Floats) -> None:
    """out = x @ weight + bias, one input after another: the order of the sums is fixed."""
    weight, bias = layer
    out[:] = bias
    for i in range(len(x)):
        value = x[i]
        row = weight[i]
        for j in range(len(out)):
            out[j] += value * row[j]


@njit(cache=True)
def _relu(out: _Floats) -> None:
    for j in range(len(out)):
        if out[j] < 0:
            out[j] = 0


@njit(cache=True)
def _hear(state: _Floats, heard: _Floats, count: int) -> None:
    """Add one sender's state to the sum and the maximum that stand in `heard` after the receiver's own state."""
    for j in range(HIDDEN):
        heard[HIDDEN + j] += state[j]
        if count == 0 or state[j] > heard[2 * HIDDEN + j]:
            heard[2 * HIDDEN + j] = state[j]


@njit(cache=True)
def _settle(heard: _Floats, count: int) -> None:
    """The sum becomes the mean; who heard nobody keeps zeros."""
    if count:
        for j in range(HIDDEN, 2 * HIDDEN):
            heard[j] /= np.float32(count)


@njit(cache=True, nogil=True)
def _embed(
    roots: _Floats,
    legs: _Floats,
    leg_root: NDArray[np.int64],
    hops: _Floats,
    hop_leg: NDArray[np.int64],
    inputs: _Inputs,
    layers: _Layers,
    embeddings: _Floats,
) -> None:
    of_hop, of_leg, of_root = inputs
    hop_in, leg_in, leg_mix, root_in, root_mix, to_state, to_logit = layers
    hop_input, leg_input, root_input = np.empty(HOP_WIDTH, np.float32), np.empty(LEG_WIDTH, np.float32), np.empty(ROOT_WIDTH, np.float32)
    state = np.empty(HIDDEN, np.float32)
    of_this_leg, of_this_root = np.empty(3 * HIDDEN, np.float32), np.empty(3 * HIDDEN, np.float32)
    logit = np.empty(1, np.float32)
    leg = hop = 0
    for root in range(len(roots)):
        of_this_root[:] = 0
        heard = 0
        while leg < len(legs) and leg_root[leg] == root:
            of_this_leg[:] = 0
            spoken = 0
            while hop < len(hops) and hop_leg[hop] == leg:
                _standard(hops[hop], of_hop, hop_input)
                _dense(hop_input, hop_in, state)
                _relu(state)
                _hear(state, of_this_leg, spoken)
                spoken += 1
                hop += 1
            _settle(of_this_leg, spoken)
            _standard(legs[leg], of_leg, leg_input)
            _dense(leg_input, leg_in, of_this_leg[:HIDDEN])
            _relu(of_this_leg[:HIDDEN])
            _dense(of_this_leg, leg_mix, state)
            _relu(state)
            _hear(state, of_this_root, heard)
            heard += 1
            leg += 1
        _settle(of_this_root, heard)
        _standard(roots[root], of_root, root_input)
        _dense(root_input, root_in, of_this_root[:HIDDEN])
        _relu(of_this_root[:HIDDEN])
        _dense(of_this_root, root_mix, state)
        _relu(state)
        embedding = embeddings[root]
        _dense(state, to_state, embedding[1:])
        for j in range(1, EMBEDDING_DIM):
            embedding[j] = np.tanh(embedding[j])
        _dense(embedding[1:], to_logit, logit)
        embedding[0] = logit[0]
