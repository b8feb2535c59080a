"""The joint likelihood and entropy of a chain: against the multivariate normal, under both reductions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from gaussian_toy import chain_gaussian, velocity
from torch import Tensor
from torch.distributions import MultivariateNormal

from pirl_server.algorithm import flow_noise, flow_sde
from pirl_server.algorithm.chain import chain_log_prob, sample_chain
from pirl_server.algorithm.flow import Transition
from pirl_server.algorithm.joint import initial_log_prob, joint_entropy, joint_log_prob, true_clip_range

STEPS = 4


def learnt(x: Tensor, v: Tensor, t: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Flow-Noise with a raw output that changes with time."""
    u = torch.sin(5.0 * t)[:, None, None].expand_as(v)
    return flow_noise.transition(x, flow_noise.join(v, u), t, dt, low=0.08, high=0.16)


NOISES: dict[str, Transition] = {
    "sde": partial(flow_sde.transition, noise_level=0.5),
    "regular": partial(flow_sde.transition, noise_level=0.5, scale=flow_sde.regular_scale),
    "noise": learnt,
}


def chains(transition: Transition, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, 1, dtype=torch.float64, generator=generator)
    noise = torch.randn(batch, STEPS, 1, 1, dtype=torch.float64, generator=generator)
    return sample_chain(velocity, x, noise, torch.ones(batch, dtype=torch.bool), transition).chain


@pytest.mark.parametrize("name", NOISES)
def test_the_sum_is_the_chains_joint_density(name: str) -> None:
    chain = chains(NOISES[name], 16)
    steps, _ = chain_log_prob(velocity, chain, NOISES[name])
    mean, factor = chain_gaussian(NOISES[name], STEPS)
    expected = MultivariateNormal(mean, scale_tril=factor).log_prob(chain[..., 0, 0])
    ours = joint_log_prob(steps, chain[:, 0], "sum")[:, 0, 0]
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)
    without_start = steps.sum(dim=1)[:, 0, 0]
    assert float((without_start - expected).abs().min()) > 0.9  # negative control


@pytest.mark.parametrize("name", NOISES)
def test_the_joint_entropy_is_the_sum_of_the_steps(name: str) -> None:
    _, std = chain_log_prob(velocity, chains(NOISES[name], 1), NOISES[name])
    mean, factor = chain_gaussian(NOISES[name], STEPS)
    expected = float(MultivariateNormal(mean, scale_tril=factor).entropy())
    ours = joint_entropy(std, torch.tensor([1]), action_dim=1) * (STEPS + 1)
    assert float(ours) == pytest.approx(expected, abs=1e-12)


def test_entropy_is_the_mean_over_executed_entries() -> None:
    """What is not executed may have any size; what is, one entropy whatever H and D."""
    std = torch.full((2, STEPS, 3, 4), 0.1, dtype=torch.float64)
    alone = joint_entropy(std[:1, :, :1, :1], torch.tensor([1]), action_dim=1)
    std[0, :, 1:], std[1, :, 2:], std[..., 2:] = 7.0, 8.0, 9.0
    assert float(joint_entropy(std, torch.tensor([1, 2]), action_dim=2)) == pytest.approx(float(alone), abs=1e-12)
    assert float(joint_entropy(std, torch.tensor([2, 2]), action_dim=2)) > float(alone) + 0.1
    assert float(joint_entropy(std, torch.tensor([0, 0]), action_dim=2)) == 0.0


def test_the_mean_over_steps_takes_a_root_of_the_ratio() -> None:
    """The clip of 0.2 is then one of [0.33, 2.49] on the true ratio."""
    chain = chains(NOISES["sde"], 64)
    old = chain_log_prob(velocity, chain, NOISES["sde"])[0]
    new = chain_log_prob(lambda x, t: velocity(x, t) + 0.1, chain, NOISES["sde"])[0]
    true, root = (
        joint_log_prob(new, chain[:, 0], how) - joint_log_prob(old, chain[:, 0], how) for how in ("sum", "mean_steps")
    )
    torch.testing.assert_close(true, root * (STEPS + 1))
    assert true_clip_range(0.2, 0.2, STEPS, "mean_steps") == pytest.approx((0.32768, 2.48832))
    assert true_clip_range(0.2, 0.28, STEPS, "sum") == pytest.approx((0.8, 1.28))


def test_the_initial_noise_cancels() -> None:
    noise = torch.randn(3, 2, 2)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise)
    torch.testing.assert_close(initial_log_prob(noise), expected)
