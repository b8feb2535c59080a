"""Several requests as rows of one forward pass; each row is as if alone.

Shape letters: N rows, H horizon, A the model's action dim, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.policy.served_policy import BATCH_SIZES, PolicyRequest


class Noise(NamedTuple):
    """What is drawn for a batch before the network is asked."""

    start_NHA: Tensor
    """the chain's first latent, at t = 1"""
    sde_NHA: Tensor
    """of the one stochastic step"""
    index_N: Tensor
    """which of the K steps that is; -1 where the ask does not explore"""


def noise(asks: Sequence[PolicyRequest], horizon: int, action_dim: int, steps: int) -> Noise:
    """Draw each row from a generator of its own, on the CPU: neither the other rows nor the device change it."""
    rows = []
    for ask in asks:
        generator = torch.Generator().manual_seed(ask.seed)
        start, sde = torch.randn(2, 1, horizon, action_dim, generator=generator)
        index = torch.randint(steps, (1,), generator=generator)
        rows.append(Noise(start, sde, index if ask.explore else torch.full_like(index, -1)))
    return Noise(*(torch.cat(parts) for parts in zip(*rows)))


def pad_to_batch_size(asks: Sequence[PolicyRequest]) -> list[PolicyRequest]:
    """Repeat the last ask up to the next of `BATCH_SIZES`: an accelerator then meets only shapes it was warmed at."""
    size = next((size for size in BATCH_SIZES if size >= len(asks)), len(asks))
    return [*asks, *[asks[-1]] * (size - len(asks))]
