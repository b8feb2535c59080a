"""The hybrid sampler of the two-layer MDP: of K denoise steps one, drawn per sample, is stochastic.

All randomness is passed in (initial noise, the one step's noise, the index): the same arguments give the same chain.
Nothing is clipped here: the density must be that of what was drawn.

Shape letters: B batch, H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.algorithm.density import log_prob
from pirl_server.algorithm.flow import Transition, Velocity, euler, per_chunk, time_at


class Draw(NamedTuple):
    """A denoising and its behaviour density."""

    chain: Tensor
    """[B, K+1, H, D]: the initial noise first, the action last"""
    log_prob: Tensor
    """[B, H, D]: density of the stochastic transition, elementwise; 0 where the index is -1. Of a chain [B, K, H, D]"""
    std: Tensor
    """its standard deviation, of the same shape; 0 where there is no noise"""


def draw_index(batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """Which step is stochastic [B], uniform over 0..K-1 and drawn per sample: one batch then covers all steps."""
    return torch.randint(steps, (batch,), generator=generator, device=generator.device)


def stratified_index(batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """As `draw_index`, with every step equally often in the batch, up to one: less variance, same expectation.

    Returns [B].
    """
    start = torch.randint(steps, (1,), generator=generator, device=generator.device)
    spread_B = (torch.arange(batch, device=generator.device) + start) % steps
    return spread_B[torch.randperm(batch, generator=generator, device=generator.device)]


def shared_index(batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """One uniform draw for the whole batch, as the paper's released code does: for comparisons. Returns [B]."""
    return torch.randint(steps, (1,), generator=generator, device=generator.device).repeat(batch)


def hybrid_sample(
    velocity: Velocity, x_BHD: Tensor, noise_BHD: Tensor, index_B: Tensor, steps: int, transition: Transition
) -> Draw:
    """Denoise x from t = 1 to 0: step `index` by `transition` with the given noise, all others by Euler.

    An index of -1 makes every step deterministic, which is how a policy is served without exploration.
    """
    dt = 1.0 / steps
    chain, std_BHD, logp_BHD = [x_BHD], torch.zeros_like(x_BHD), torch.zeros_like(x_BHD)
    for k in range(steps):
        x_BHD = chain[-1]
        t_B = time_at(torch.full_like(index_B, k), steps, x_BHD.dtype)
        v_BHD = velocity(x_BHD, t_B)
        mean_BHD, std = transition(x_BHD, v_BHD, t_B, dt)
        noisy = per_chunk(index_B == k)
        next_BHD = torch.where(noisy, mean_BHD + std * noise_BHD, euler(x_BHD, v_BHD, dt))
        logp_BHD = torch.where(noisy, log_prob(next_BHD, mean_BHD, std), logp_BHD)
        std_BHD = torch.where(noisy, std, std_BHD)
        chain.append(next_BHD)
    return Draw(torch.stack(chain, dim=1), logp_BHD, std_BHD)


def step_of_chain(chain_BKHD: Tensor, index_B: Tensor) -> tuple[Tensor, Tensor]:
    """The stochastic step's two ends (x_t, x_{t-dt}), each [B, H, D]. The index must not be -1."""
    row_B = torch.arange(len(index_B), device=index_B.device)
    return chain_BKHD[row_B, index_B], chain_BKHD[row_B, index_B + 1]


def transition_log_prob(
    velocity: Velocity, x_BHD: Tensor, next_BHD: Tensor, index_B: Tensor, steps: int, transition: Transition
) -> Tensor:
    """Density [B, H, D] that the weights behind `velocity` give to a stored transition: one network pass per sample.

    Same transition, same clock and same dtype as `hybrid_sample`, so unchanged weights return the stored numbers.
    """
    t_B = time_at(index_B, steps, x_BHD.dtype)
    mean_BHD, std = transition(x_BHD, velocity(x_BHD, t_B), t_B, 1.0 / steps)
    return log_prob(next_BHD, mean_BHD, std)
