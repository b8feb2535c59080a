"""Flow matching and its deterministic sampler.

THE CLOCK, said once for the whole project: t = 1 is noise and t = 0 is the action. The network predicts the velocity
v = noise - action, so sampling walks t downwards: x_{t-dt} = x_t - dt v. The pi_RL paper's text counts the other way
(tau = 1 - t); `docs/adr/0001-clock.md` says why this side was taken.

Shape letters: B batch, H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_BHD, t_B) -> v_BHD. Behind v there may be more channels, for the `Transition` that asks for them (Flow-Noise)."""

Transition = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(x_BHD, v_BHD, t_B, dt) -> mean_BHD and a standard deviation that broadcasts against it.

One denoise step from t to t - dt. Sampling and the log-probability both call it, so unchanged weights give a PPO ratio
of exactly 1. It is the seam between Flow-SDE and other noise injections.
"""


def per_chunk(t_B: Tensor) -> Tensor:
    """Shape a per-sample scalar [B] so that it broadcasts over [B, H, D]."""
    return t_B[:, None, None]


def time_at(step_B: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Time at which denoise step 0..K-1 evaluates the network: 1, (K-1)/K, ..., 1/K. Never 0. Returns [B]."""
    return 1.0 - step_B.to(dtype) / steps


def draw_time(batch: int, generator: torch.Generator) -> Tensor:
    """Training times [B] in (0.001, 1]: 0.999 Beta(1.5, 1) + 0.001, openpi's choice, by its inverse CDF."""
    u_B = torch.rand(batch, generator=generator, device=generator.device)
    return 0.999 * u_B ** (1.0 / 1.5) + 0.001


def interpolate(action_BHD: Tensor, noise_BHD: Tensor, t_B: Tensor) -> Tensor:
    """Straight path x_t = (1 - t) action + t noise. Returns [B, H, D]."""
    t = per_chunk(t_B)
    return (1.0 - t) * action_BHD + t * noise_BHD


def flow_matching_loss(v_BHD: Tensor, action_BHD: Tensor, noise_BHD: Tensor) -> Tensor:
    """Conditional flow-matching error (v - (noise - action))^2, unreduced [B, H, D]."""
    return (v_BHD - (noise_BHD - action_BHD)) ** 2


def score(x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor) -> Tensor:
    """Gradient of log p_t(x): minus the expected noise x + (1 - t) v, over t. Returns [B, H, D]."""
    t = per_chunk(t_B)
    return -(x_BHD + (1.0 - t) * v_BHD) / t


def euler(x_BHD: Tensor, v_BHD: Tensor, dt: float) -> Tensor:
    """One deterministic step from t to t - dt. Channels behind v are left out. Returns [B, H, D]."""
    return x_BHD - dt * v_BHD[..., : x_BHD.shape[-1]]


def euler_chain(velocity: Velocity, x_BHD: Tensor, steps: int) -> Tensor:
    """Walk from the noise x at t = 1 in K Euler steps; chain [B, K+1, H, D], its last entry the action."""
    chain = [x_BHD]
    for k in range(steps):
        t_B = time_at(x_BHD.new_full(x_BHD.shape[:1], k), steps, x_BHD.dtype)
        chain.append(euler(chain[-1], velocity(chain[-1], t_B), 1.0 / steps))
    return torch.stack(chain, dim=1)
