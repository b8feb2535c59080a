"""Flow-SDE: a stochastic step with the marginals of the flow ODE, hence with a density for PPO.

The paper prints Eqs. 7-9 in its own clock but with the score, schedule and sign of the opposite one; taken literally
they diverge. What stands here is re-derived in the t clock of `flow.py`; `docs/algorithm.md` has the derivation.

Shape letters: B batch, H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pirl_server.algorithm.flow import per_chunk, score

Level = float | Tensor
"""one noise level for all samples, or each sample's own [B]"""
Scale = Callable[[Tensor, float, Level], Tensor]
"""(t_B, dt, noise_level) -> diffusion coefficient sigma_B"""


def noise_scale(t_B: Tensor, dt: float, noise_level: Level) -> Tensor:
    """Diffusion coefficient sigma_t = a sqrt(t / (1 - t)), a = noise_level.

    At t = 1 the schedule is infinite; there 1 - t is replaced by its value one step later, which is dt. The first
    step's standard deviation sigma sqrt(dt) is therefore exactly a for every K. Returns [B].
    """
    return noise_level * torch.sqrt(t_B / torch.clamp(1.0 - t_B, min=dt))


def regular_scale(t_B: Tensor, dt: float, noise_level: Level) -> Tensor:
    """Diffusion coefficient sigma_t = a sqrt(t): finite everywhere, so its marginals converge as O(1/K).

    Returns [B].
    """
    return noise_level * torch.sqrt(t_B)


def annealed(start: float, end: float, over: int, update: int) -> float:
    """Noise level of this update: linear from `start` to `end` over the first `over` updates, `end` after them."""
    return start + (end - start) * min(update / over, 1.0)


def sde_step(x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor, dt: float, sigma_B: Tensor) -> tuple[Tensor, Tensor]:
    """Euler-Maruyama step t -> t - dt of the SDE whose marginals are the ODE's, for any diffusion coefficient.

    mean = x - dt (v - sigma^2 / 2 score), std = sigma sqrt(dt), where the score is that of `flow.score`.
    The marginals agree as dt -> 0 only: one step adds variance of order dt^2. Mean [B, H, D], std [B, 1, 1].
    """
    mean_BHD = x_BHD - dt * (v_BHD - per_chunk(0.5 * sigma_B**2) * score(x_BHD, v_BHD, t_B))
    return mean_BHD, per_chunk(sigma_B) * dt**0.5


def transition(
    x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor, dt: float, *, noise_level: Level, scale: Scale = noise_scale
) -> tuple[Tensor, Tensor]:
    """`Transition` of Flow-SDE: `sde_step` with a schedule, the paper's by default. Bind `noise_level` for the seam.

    Mean [B, H, D], std [B, 1, 1].
    """
    return sde_step(x_BHD, v_BHD, t_B, dt, scale(t_B, dt, noise_level))
