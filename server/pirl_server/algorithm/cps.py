"""Coefficient-preserving sampling: noise of the size that the path has at its next point (arXiv 2509.05952).

Shape letters: B batch, H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pirl_server.algorithm.flow import per_chunk


def transition(x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor, dt: float, *, noise_level: float) -> tuple[Tensor, Tensor]:
    """`Transition` to s = t - dt: mean = (1 - s) x0 + s cos(pi a / 2) x1, std = s sin(pi a / 2), a = noise_level.

    x0 = x - t v is the expected action, x1 = x + (1 - t) v the expected noise. Exact for a single action whatever K;
    for a spread target the marginals stay off as K grows. The last step has std 0 and hence no density: draw the
    stochastic index of a hybrid sampler from the first K - 1 steps. Mean [B, H, D], std [B, 1, 1].
    """
    t = per_chunk(t_B)
    # t - dt is 0 up to rounding at the last step, and a std of 1e-8 would be a density
    s = torch.where(t - dt > 0.5 * dt, t - dt, torch.zeros_like(t))
    action_BHD, noise_BHD = x_BHD - t * v_BHD, x_BHD + (1.0 - t) * v_BHD
    angle = 0.5 * math.pi * noise_level
    return (1.0 - s) * action_BHD + s * math.cos(angle) * noise_BHD, s * math.sin(angle)
