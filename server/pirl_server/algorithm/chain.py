"""The full two-layer MDP: every denoise step is stochastic and has its own density.

The inner MDP walks the chain of one decision, the outer one goes from decision to decision. Flow-Noise always samples
so; Flow-SDE may, at K network passes per sample and recomputation where the hybrid sampler has one.

Shape letters: B batch, K denoise steps, H horizon, D action dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.density import log_prob
from pirl_server.algorithm.flow import Transition, Velocity, euler, per_chunk, time_at
from pirl_server.algorithm.hybrid_sampler import Draw


def sample_chain(
    velocity: Velocity, x_BHD: Tensor, noise_BKHD: Tensor, noisy_B: Tensor, transition: Transition
) -> Draw:
    """Denoise x from t = 1 to 0 in K steps, each by `transition` with its own noise where `noisy`, else by Euler.

    The draw's density and standard deviation are [B, K, H, D], 0 where a row is not noisy.
    """
    steps = noise_BKHD.shape[1]
    noisy = per_chunk(noisy_B)
    chain, densities, stds = [x_BHD], [], []
    for k in range(steps):
        x_BHD = chain[-1]
        t_B = time_at(x_BHD.new_full(x_BHD.shape[:1], k), steps, x_BHD.dtype)
        v_BHD = velocity(x_BHD, t_B)
        mean_BHD, std = transition(x_BHD, v_BHD, t_B, 1.0 / steps)
        std_BHD = torch.where(noisy, std, torch.zeros_like(x_BHD))
        chain.append(torch.where(noisy, mean_BHD + std * noise_BKHD[:, k], euler(x_BHD, v_BHD, 1.0 / steps)))
        densities.append(log_prob(chain[-1], mean_BHD, std_BHD))
        stds.append(std_BHD)
    return Draw(torch.stack(chain, dim=1), torch.stack(densities, dim=1), torch.stack(stds, dim=1))


def chain_log_prob(velocity: Velocity, chain_BKHD: Tensor, transition: Transition) -> tuple[Tensor, Tensor]:
    """Density and standard deviation [B, K, H, D] of each step of stored chains [B, K+1, H, D]: K network passes.

    Same transition, clock and dtype as `sample_chain`, so unchanged weights return the stored numbers. The standard
    deviations are for the entropy bonus and have a gradient.
    """
    steps = chain_BKHD.shape[1] - 1
    densities, stds = [], []
    for k in range(steps):
        x_BHD, next_BHD = chain_BKHD[:, k], chain_BKHD[:, k + 1]
        t_B = time_at(x_BHD.new_full(x_BHD.shape[:1], k), steps, x_BHD.dtype)
        mean_BHD, std = transition(x_BHD, velocity(x_BHD, t_B), t_B, 1.0 / steps)
        stds.append(std.expand_as(x_BHD))
        densities.append(log_prob(next_BHD, mean_BHD, std))
    return torch.stack(densities, dim=1), torch.stack(stds, dim=1)
