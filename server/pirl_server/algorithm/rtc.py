"""Real-time chunking: samples a new chunk that continues the actions still being played.

Two ways. Guided (arXiv 2506.07339) inpaints any flow policy at inference: each step's velocity is pulled towards the
actions that are known. Prefix-conditioned (arXiv 2512.05964) is for a policy trained for it: the known actions enter
as they are, each token with a time of its own, and the others are drawn given them. The papers count tau = 1 - t and
predict action - noise; what stands here is in the clock of `flow.py`.

Shape letters: B batch, H horizon, D action dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from pirl_server.algorithm.flow import Transition, Velocity, per_chunk

MOST_GUIDANCE = 5.0
"""beta: bounds the pull where it would be infinite, at the first of few denoise steps (2506.07339, its default)"""


def overlap_weights(horizon: int, delay_B: Tensor, count_B: Tensor) -> Tensor:
    """How firmly each action of the new chunk is held to the one it overlaps with [B, H] (2506.07339, Eq. 5).

    1 for i < delay: played before the new chunk arrives. Then c (e^c - 1) / (e - 1) with c = (n - i) / (n - d + 1),
    which falls off to the last of the n = `count` known actions. 0 beyond. delay <= count.
    """
    i_H = torch.arange(horizon, device=delay_B.device)
    delay, count = delay_B[:, None], count_B[:, None]
    left = ((count - i_H) / (count - delay + 1)).clamp(0.0, 1.0)
    return torch.where(i_H < delay, torch.ones_like(left), left * torch.expm1(left) / (math.e - 1.0))


def guidance_scale(t_B: Tensor, most: float = MOST_GUIDANCE) -> Tensor:
    """min(beta, t / ((1 - t) r^2)) with r^2 = t^2 / ((1 - t)^2 + t^2) [B] (2506.07339, Eqs. 2 and 4).

    r^2 is the variance of an action of unit variance given x_t: for such a policy the unbounded scale is exact.
    """
    return (((1.0 - t_B) ** 2 + t_B**2) / (t_B * (1.0 - t_B))).clamp(max=most)


def guided(velocity: Velocity, target_BHD: Tensor, weight_BHD: Tensor, most: float = MOST_GUIDANCE) -> Velocity:
    """Velocity that leads towards `target` where `weight` is above 0.

    The action expected at x_t is a = x - t v. v is corrected by -scale J^T (weight (target - a)), J = da / dx: one
    vector-Jacobian product per call. `velocity` must let gradients pass from x; no argument may be of inference mode.
    """

    def corrected(x_BHD: Tensor, t_B: Tensor) -> Tensor:
        t = per_chunk(t_B)
        with torch.enable_grad():
            x_BHD = x_BHD.detach().requires_grad_()
            out = velocity(x_BHD, t_B)
            v_BHD = out[..., : x_BHD.shape[-1]]
        error_BHD = weight_BHD * (target_BHD - (x_BHD - t * v_BHD)).detach()
        (through_BHD,) = torch.autograd.grad(v_BHD, x_BHD, error_BHD)
        pull_BHD = per_chunk(guidance_scale(t_B, most)) * (error_BHD - t * through_BHD)
        return out.detach() - pad(pull_BHD, (0, out.shape[-1] - x_BHD.shape[-1]))

    return corrected


def given_tokens(horizon: int, delay_B: Tensor) -> Tensor:
    """Which actions are the first `delay` [B, H]: a prefix-conditioned draw takes them as they are."""
    return torch.arange(horizon, device=delay_B.device) < delay_B[:, None]


def start_given(noise_BHD: Tensor, target_BHD: Tensor, given_BH: Tensor) -> Tensor:
    """Where a prefix-conditioned denoising starts: clean actions where they are given, noise elsewhere.

    Returns [B, H, D].
    """
    return torch.where(given_BH[..., None], target_BHD, noise_BHD)


def resting(velocity: Velocity, given_BH: Tensor) -> Velocity:
    """Velocity that is 0 at the given actions: every Euler step leaves them bit for bit."""
    return lambda x_BHD, t_B: velocity(x_BHD, t_B).masked_fill(given_BH[..., None], 0.0)


def resting_transition(transition: Transition, given_BH: Tensor) -> Transition:
    """Transition that leaves the given actions as they are, with std 0 and so without a density.

    The density of the others is that of the policy conditioned on the given ones.
    """
    given = given_BH[..., None]

    def step(x_BHD: Tensor, v_BHD: Tensor, t_B: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        mean_BHD, std = transition(x_BHD, v_BHD, t_B, dt)
        std_BHD = std.expand_as(mean_BHD)
        return torch.where(given, x_BHD, mean_BHD), std_BHD.masked_fill(given, 0.0)

    return step


def draw_delays(batch: int, longest: int, generator: torch.Generator) -> Tensor:
    """Delays [B] that training simulates, uniform over 0..longest (2512.05964)."""
    return torch.randint(longest + 1, (batch,), generator=generator, device=generator.device)


def token_times(t_B: Tensor, given_BH: Tensor) -> Tensor:
    """Time of each token [B, H]: 0, the action's, where it is given; the chunk's elsewhere."""
    return torch.where(given_BH, torch.zeros_like(t_B)[:, None], t_B[:, None])
