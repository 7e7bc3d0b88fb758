"""Fitting the encoder: weighted log-loss on labelled snapshots, early stopping on wallets that it does not learn
from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graph.neighbourhood import Neighbourhoods
from ml.encoder import Encoder, embed_in_batches, tensors

LEARNING_RATE: Final = 3e-3
WEIGHT_DECAY: Final = 1e-3
BATCH: Final = 512
PATIENCE: Final = 3


def fit_encoder(
    near: Neighbourhoods,
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    fit: NDArray[np.int64],
    watch: NDArray[np.int64],
    seed: int,
    epochs: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[Encoder, int]:
    """Train on rows `fit`, stop when the loss on rows `watch` has not fallen for PATIENCE epochs.

    Arguments: near: m neighbourhoods; label, weight: [m]; fit, watch: int64 rows; an empty `watch` runs all `epochs`.
    Returns the encoder of the best epoch and that epoch, counted from 1. The same seed gives the same weights on one
    machine.
    """
    threads = torch.get_num_threads()
    # One thread: these matrices are small, and on a busy machine two threads waiting for each other took thirty times
    # as long.
    torch.set_num_threads(1)
    try:
        return _fit(near, label, weight, fit, watch, seed, epochs, on_epoch)
    finally:
        torch.set_num_threads(threads)


def _fit(
    near: Neighbourhoods,
    label: NDArray[np.int64],
    weight: NDArray[np.float64],
    fit: NDArray[np.int64],
    watch: NDArray[np.int64],
    seed: int,
    epochs: int,
    on_epoch: Callable[[int, float], None],
) -> tuple[Encoder, int]:
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    encoder = Encoder()
    encoder.standardise_on(near.take(fit))
    loss_of = nn.BCEWithLogitsLoss(reduction="none")
    optimiser = torch.optim.AdamW(encoder.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = epochs * -(-len(fit) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=max(steps, 2))
    share = (weight / weight[fit].mean()).astype(np.float32)
    best, best_epoch, best_weights = np.inf, epochs, None
    for epoch in range(1, epochs + 1):
        encoder.train()
        shuffled = order.permutation(fit)
        for start in range(0, len(shuffled), BATCH):
            rows = shuffled[start : start + BATCH]
            optimiser.zero_grad()
            logit = encoder(*tensors(near.take(rows)))[:, 0]
            target = torch.from_numpy(label[rows].astype(np.float32))
            loss = (loss_of(logit, target) * torch.from_numpy(share[rows])).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 2.0)
            optimiser.step()
            schedule.step()
        if not len(watch):
            on_epoch(epoch, float(loss.detach()))
            continue
        watched = log_loss(embed_in_batches(encoder, near.take(watch))[:, 0], label[watch], weight[watch])
        on_epoch(epoch, watched)
        if watched < best:
            best, best_epoch = watched, epoch
            best_weights = {name: value.clone() for name, value in encoder.state_dict().items()}
        elif epoch - best_epoch >= PATIENCE:
            break
    if best_weights is not None:
        encoder.load_state_dict(best_weights)
    encoder.eval()
    return encoder, best_epoch


def log_loss(log_odds: NDArray[np.float32], label: NDArray[np.int64], weight: NDArray[np.float64]) -> float:
    """Weighted log-loss of log-odds [m] against labels [m]."""
    signed = np.where(label == 1, -log_odds, log_odds).astype(np.float64)
    return float(np.average(np.logaddexp(0.0, signed), weights=weight))
