"""A bandit to learn: reward -(action - 1.5)^2 for a flow whose velocity starts as that of N(0.7, 0.35^2).

Several seeds learn side by side, each with weights of its own: K shifts and K slopes of the velocity (affine, so the
evaluation is an exact recursion), and K raw noise outputs for Flow-Noise.

Shape letters: S seeds, N samples of each, B = S N, K denoise steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from gaussian_toy import velocity
from torch import Tensor

from pirl_server.algorithm import flow_noise, flow_sde
from pirl_server.algorithm.advantage import normalise
from pirl_server.algorithm.chain import chain_log_prob, sample_chain
from pirl_server.algorithm.flow import Transition, time_at
from pirl_server.algorithm.hybrid_sampler import draw_index, hybrid_sample, step_of_chain, transition_log_prob
from pirl_server.algorithm.joint import Reduction, joint_log_prob
from pirl_server.algorithm.ppo import policy_loss

SEEDS, SAMPLES, STEPS, GOAL = 5, 256, 4, 1.5

LogProb = Callable[[], Tensor]
"""-> log-density [B] that the present weights give to what was drawn"""


@dataclass
class Policy:
    """Weights of S seeds."""

    shift_SK: Tensor = field(default_factory=lambda: torch.zeros(SEEDS, STEPS, requires_grad=True))
    slope_SK: Tensor = field(default_factory=lambda: torch.zeros(SEEDS, STEPS, requires_grad=True))
    noise_SK: Tensor = field(default_factory=lambda: torch.zeros(SEEDS, STEPS, requires_grad=True))

    def velocity(self, x_B: Tensor, t_B: Tensor) -> Tensor:
        """[v, u] of rows ordered by seed."""
        step_B = ((1.0 - t_B) * STEPS).round().long()
        seed_B = torch.arange(len(x_B)) // (len(x_B) // SEEDS)
        shift, slope, noise = (w[seed_B, step_B][:, None, None] for w in (self.shift_SK, self.slope_SK, self.noise_SK))
        return flow_noise.join(velocity(x_B, t_B) + shift + slope * x_B, noise)

    @torch.no_grad()
    def ode_reward(self) -> Tensor:
        """Expected reward [S] of the deterministic sampler, exact: -(M - goal)^2 - V."""
        mean, variance = torch.zeros(SEEDS), torch.ones(SEEDS)
        ends = torch.tensor([0.0, 1.0]).repeat(SEEDS)[:, None, None]
        for k in range(STEPS):
            t = time_at(torch.full((2 * SEEDS,), k), STEPS, torch.float32)
            out = (ends - self.velocity(ends, t)[..., :1] / STEPS).view(SEEDS, 2)
            slope = out[:, 1] - out[:, 0]
            mean, variance = slope * mean + out[:, 0], slope**2 * variance
        return -((mean - GOAL) ** 2) - variance


def sde(x: Tensor, vu: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Flow-SDE, which leaves the noise channel alone."""
    return flow_sde.transition(x, vu[..., :1], t, dt, noise_level=0.5)


def learnt_noise(x: Tensor, vu: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Flow-Noise with pi_RL's bounds."""
    return flow_noise.transition(x, vu, t, dt, low=0.08, high=0.16)


def hybrid(policy: Policy, generator: torch.Generator) -> tuple[Tensor, LogProb]:
    """One noisy step per sample: action [B] and its density."""
    x, noise = torch.randn(2, SEEDS * SAMPLES, 1, 1, generator=generator)
    index = draw_index(SEEDS * SAMPLES, STEPS, generator)
    chain = hybrid_sample(policy.velocity, x, noise, index, STEPS, sde).chain
    ends = step_of_chain(chain, index)
    return chain[:, -1].flatten(), lambda: transition_log_prob(policy.velocity, *ends, index, STEPS, sde).flatten()


def every_step(transition: Transition, reduction: Reduction) -> Callable[..., tuple[Tensor, LogProb]]:
    """Noise in each step, joint likelihood."""

    def draw(policy: Policy, generator: torch.Generator) -> tuple[Tensor, LogProb]:
        x = torch.randn(SEEDS * SAMPLES, 1, 1, generator=generator)
        noise = torch.randn(SEEDS * SAMPLES, STEPS, 1, 1, generator=generator)
        chain = sample_chain(policy.velocity, x, noise, torch.ones(len(x), dtype=torch.bool), transition).chain
        return chain[:, -1].flatten(), lambda: joint_log_prob(
            chain_log_prob(policy.velocity, chain, transition)[0], chain[:, 0], reduction
        ).flatten()

    return draw


def learn(draw: Callable[..., tuple[Tensor, LogProb]], *, updates: int, shuffled: bool = False) -> Tensor:
    """Improve a fresh policy by PPO; return its ODE reward [S]. `shuffled` gives each advantage to another sample."""
    policy, generator = Policy(), torch.Generator().manual_seed(0)
    weights = [policy.shift_SK, policy.slope_SK, policy.noise_SK]
    optimiser = torch.optim.Adam(weights, lr=0.02)
    valid = torch.ones(SEEDS * SAMPLES, dtype=torch.bool)
    for _ in range(updates):
        with torch.no_grad():
            action, log_prob = draw(policy, generator)
            old = log_prob()
        reward = -((action - GOAL) ** 2).view(SEEDS, SAMPLES)
        advantage = torch.stack([normalise(each, valid[:SAMPLES]) for each in reward])
        if shuffled:
            advantage = advantage[:, torch.randperm(SAMPLES, generator=generator)]
        for _ in range(4):
            optimiser.zero_grad()
            loss, _ = policy_loss(log_prob(), old, advantage.flatten(), valid)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return policy.ode_reward()
