"""Exploration in training: one object samples the chains of rollouts and recomputes their log-probability.

Which noise, in which denoise steps, and how densities become one number per decision: all of it is chosen here, once,
for sampling and for the update, so that weights that have not changed give a ratio of 1.

Shape letters: B decisions, K denoise steps, C stored latents, H horizon, D action dim, F features, W expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.algorithm import cps, flow_noise, flow_sde
from pirl_server.algorithm.chain import chain_log_prob, sample_chain
from pirl_server.algorithm.density import sum_executed
from pirl_server.algorithm.flow import Transition, Velocity
from pirl_server.algorithm.hybrid_sampler import (
    draw_index,
    hybrid_sample,
    shared_index,
    step_of_chain,
    stratified_index,
    transition_log_prob,
)
from pirl_server.algorithm.joint import joint_log_prob
from pirl_server.config.training import PpoConfig
from pirl_server.model.critic import expert_value_input
from pirl_server.model.noise_net import NoiseNet, Predict
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array

INDEX = {"sample": draw_index, "stratified": stratified_index, "shared": shared_index}
SCHEDULE = {"paper": flow_sde.noise_scale, "regular": flow_sde.regular_scale}


class Explored(NamedTuple):
    """What a decision leaves behind for its update."""

    action: Tensor
    """[B, H, D] the chain's end"""
    latents: Tensor
    """[B, C, H, D] what its density is of: the two ends of the stochastic step, or the chain of K + 1"""
    step: Tensor
    """[B] which step was stochastic; -1: each"""
    log_prob: Tensor
    """[B], or [B, K] where each step has a ratio of its own"""
    outputs: Tensor
    """[B, K, W] the expert's outputs at each step, averaged over the horizon: what V_expert reads"""


class Explorer:
    """The exploration of one policy; its noise level is that of the policy's card."""

    def __init__(self, policy: FlowPolicy, config: PpoConfig, net: NoiseNet | None = None) -> None:
        assert (net is not None) == (config.noise == "flow-noise")
        self.policy, self.net, self.config = policy, net, config
        if config.noise == "cps" and config.steps == "hybrid" and policy.card.denoise_steps < 2:
            raise ValueError("noise 'cps' is zero in the last denoise step: set denoise_steps to 2 or more")

    @property
    def transition(self) -> Transition:
        """The stochastic denoise step: sampling and density both use it."""
        level = self.policy.card.noise_level
        if self.config.noise == "flow-noise":
            return partial(flow_noise.transition, low=self.config.std_low, high=self.config.std_high)
        if self.config.noise == "cps":
            return partial(cps.transition, noise_level=level)
        return partial(flow_sde.transition, noise_level=level, scale=SCHEDULE[self.config.schedule])

    def draw(self, features_BF: Array, prefix: Prefix, generator: torch.Generator) -> Explored:
        """Denoise one chunk per row, for a rollout: no gradient passes.

        The prefix is where the model is, everything else on the CPU.
        """
        policy, device = self.policy, self.policy.device
        steps, outputs = policy.card.denoise_steps, list[Tensor]()
        noise, more, index = (part.to(device) for part in self._noise(len(features_BF), generator))
        denoiser = policy.model.denoiser(prefix, torch.from_numpy(features_BF).to(device), steps)
        velocity = self._velocity(_kept(denoiser.predict, outputs))
        if self.config.steps == "all":
            draw = sample_chain(velocity, noise, more, torch.ones_like(index, dtype=torch.bool), self.transition)
            latents, index = draw.chain, torch.full_like(index, -1)
        else:
            draw = hybrid_sample(velocity, noise, more, index, steps, self.transition)
            latents = torch.stack(step_of_chain(draw.chain, index), dim=1)
        log_prob = self._reduced(draw.log_prob, latents[:, 0])
        found = (draw.chain[:, -1], latents, index, log_prob, torch.stack(outputs, dim=1))
        return Explored(*(part.cpu() for part in found))

    def log_prob(
        self, prefix: Prefix, features_BF: Tensor, latents_BCHD: Tensor, index_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-density, as `Explored.log_prob`, that the present weights give to stored latents, with its gradient.

        Also the standard deviation of the noise, [B, H, D] of the one step or [B, K, H, D] of each.
        """
        policy = self.policy
        velocity = self._velocity(lambda x, t: policy.model.velocity_and_features(prefix, features_BF, x, t))
        if self.config.steps == "all":
            element, std = chain_log_prob(velocity, latents_BCHD, self.transition)
            return self._reduced(element, latents_BCHD[:, 0]), std
        x, x_next = latents_BCHD.unbind(1)
        element, std = _with_std(velocity, x, x_next, index_B, policy.card.denoise_steps, self.transition)
        return self._reduced(element, x), std

    def _noise(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Where the chain starts, the noise of its one step or of all, and which step that is."""
        card, silent = self.policy.card, int(self.config.noise == "cps")
        shape = (batch, card.model.horizon, card.model.action_dim)
        if self.config.steps == "all":
            start = torch.randn(shape, generator=generator)
            more = torch.randn(batch, card.denoise_steps, *shape[1:], generator=generator)
            return start, more, torch.zeros(batch, dtype=torch.int64)
        start, more = torch.randn(2, *shape, generator=generator)
        return start, more, INDEX[self.config.index](batch, card.denoise_steps - silent, generator)

    def _velocity(self, predict: Predict) -> Velocity:
        def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
            v_BHD, features_BHW = predict(x_BHD, t_B)
            return v_BHD if self.net is None else flow_noise.join(v_BHD, self.net(features_BHW))

        return velocity

    def _reduced(self, element: Tensor, start_BHD: Tensor) -> Tensor:
        """Densities element by element -> of the first execute_horizon actions, as the config says.

        Those are to be played; where the episode ends before, the others count all the same.
        """
        policy, reduction = self.policy, self.config.reduction
        executed = torch.full(start_BHD.shape[:1], policy.execute_horizon, device=start_BHD.device)
        real = policy.contract.action_dim
        if self.config.steps == "hybrid":
            return sum_executed(element, executed, real)
        if reduction == "per_step":
            return torch.stack([sum_executed(step, executed, real) for step in element.unbind(1)], dim=1)
        return sum_executed(joint_log_prob(element, start_BHD, reduction), executed, real)


def _kept(predict: Predict, outputs: list[Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Keep what V_expert reads at each step."""

    def keeping(x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        v_BHD, features_BHW = predict(x_BHD, t_B)
        outputs.append(expert_value_input(features_BHW, detach=True))
        return v_BHD, features_BHW

    return keeping


def _with_std(
    velocity: Velocity, x_BHD: Tensor, next_BHD: Tensor, index_B: Tensor, steps: int, transition: Transition
) -> tuple[Tensor, Tensor]:
    """`transition_log_prob` and the standard deviation that it was taken with."""
    stds: list[Tensor] = []

    def watched(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        mean, std = transition(x, v, t, dt)
        stds.append(std.expand_as(x))
        return mean, std

    element = transition_log_prob(velocity, x_BHD, next_BHD, index_B, steps, watched)
    return element, stds[0]
