"""A problem whose every marginal is known: the action is N(0.7, 0.35^2), so the exact velocity is affine in x.

For an affine velocity every denoise step maps a Gaussian to a Gaussian, and its mean and variance follow a recursion
without sampling. Clock: t = 1 noise, t = 0 action.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pirl_server.algorithm.flow import Transition, euler, per_chunk, time_at

MEAN, STD = 0.7, 0.35


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


def time(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def marginal(t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of x at time t."""
    return (1.0 - t) * MEAN, (1.0 - t) ** 2 * STD**2 + t**2


def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
    """E[noise - action | x_t], exact."""
    t = per_chunk(t_B)
    mean, variance = marginal(t)
    return (t - (1.0 - t) * STD**2) * (x_BHD - mean) / variance - MEAN


def euler_transition(x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """The plain ODE step as a transition: standard deviation 0."""
    return euler(x_BHD, v_BHD, dt), torch.zeros_like(per_chunk(t_B))


def propagate(transition: Transition, steps: int, only: int | None = None) -> tuple[float, float]:
    """Final mean and standard deviation of a sampler, by exact recursion; `only`: every other step is the ODE's."""
    t = time_at(torch.arange(steps), steps, torch.float64)
    zero, one = scalar(0.0).expand(steps, 1, 1), scalar(1.0).expand(steps, 1, 1)
    noisy, quiet = (affine(step, zero, one, t, 1.0 / steps) for step in (transition, euler_transition))
    mean, variance = 0.0, 1.0
    for k in range(steps):
        slope, offset, std = (noisy if only in (None, k) else quiet)[k]
        mean, variance = slope * mean + offset, slope**2 * variance + std**2
    return mean, variance**0.5


def affine(step: Transition, zero: Tensor, one: Tensor, t: Tensor, dt: float) -> list[list[float]]:
    """Slope, offset and standard deviation of each step."""
    offset, std = step(zero, velocity(zero, t), t, dt)
    slope = step(one, velocity(one, t), t, dt)[0] - offset
    table: list[list[float]] = torch.cat([slope, offset, std.expand_as(slope)], dim=-1)[:, 0].tolist()
    return table


def chain_gaussian(transition: Transition, steps: int) -> tuple[Tensor, Tensor]:
    """Mean [K+1] and lower triangular factor [K+1, K+1] of a chain: x_0 ~ N(0, 1), x_{k+1} = A x_k + B + s z."""
    t = time_at(torch.arange(steps), steps, torch.float64)
    mean, factor = torch.zeros(steps + 1, dtype=torch.float64), torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    factor[0, 0] = 1.0
    table = affine(transition, scalar(0.0).expand(steps, 1, 1), scalar(1.0).expand(steps, 1, 1), t, 1.0 / steps)
    for k, (slope, offset, std) in enumerate(table):
        mean[k + 1] = slope * mean[k] + offset
        factor[k + 1] = slope * factor[k]
        factor[k + 1, k + 1] = std
    return mean, factor
