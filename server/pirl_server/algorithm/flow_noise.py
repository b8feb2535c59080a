"""Flow-Noise: the plain Euler step plus noise whose size a network learns, between bounds (paper Eq. 4).

The noise net reads the action expert's outputs, so its answer comes out of the same pass as the velocity and travels
behind it: [v, u] in one tensor, which `Transition` takes as its velocity.

The mean has no score correction: marginals are not the ODE's, and evaluation drops the noise altogether.

Shape letters: B batch, H horizon, D action dim, U = 2 D.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pirl_server.algorithm.flow import euler


def bounded_std(u_BHD: Tensor, low: float, high: float) -> Tensor:
    """Standard deviation of a raw output u: log std = log low + (log high - log low) (tanh u + 1) / 2.

    u = 0 gives the geometric mean sqrt(low high). The paper calls these bounds log-variances; its numbers (0.08, 0.16)
    are standard deviations, and so are they here. The clamp takes off what rounding adds at the bounds.
    Returns [B, H, D].
    """
    share_BHD = 0.5 * (torch.tanh(u_BHD) + 1.0)
    return torch.exp(math.log(low) + math.log(high / low) * share_BHD).clamp(low, high)


def join(v_BHD: Tensor, u_BHD: Tensor) -> Tensor:
    """Velocity and the noise net's raw output as one tensor [B, H, U]."""
    return torch.cat([v_BHD, u_BHD], dim=-1)


def transition(
    x_BHD: Tensor, v_BHU: Tensor, t_B: Tensor, dt: float, *, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """`Transition` of Flow-Noise: mean x - dt v, std bounded by low and high per step (not per unit of time).

    Bind the bounds to get the seam; `v_BHU` is what `join` made. Both are [B, H, D].
    """
    v_BHD, u_BHD = v_BHU.chunk(2, dim=-1)
    return euler(x_BHD, v_BHD, dt), bounded_std(u_BHD, low, high)
