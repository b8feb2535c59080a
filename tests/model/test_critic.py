"""Value networks: initial state, inputs, and that they can learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pirl_server.model.critic import StateCritic, ValueHead, expert_value_input


def test_expert_input_is_the_horizon_mean_and_can_be_detached() -> None:
    features = torch.randn(2, 4, 8, requires_grad=True)
    torch.testing.assert_close(expert_value_input(features, detach=False), features.mean(dim=1))
    assert expert_value_input(features, detach=False).requires_grad
    assert not expert_value_input(features, detach=True).requires_grad


def test_value_head_has_the_papers_four_layers() -> None:
    torch.manual_seed(0)
    linear = [layer for layer in ValueHead(96).modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [512, 256, 128, 1]
    assert all(float(layer.bias.detach().abs().max()) == 0.0 for layer in linear)
    for layer in linear[:-1]:
        assert float(layer.weight.detach().std()) == pytest.approx((2.0 / layer.out_features) ** 0.5, rel=0.05)
    assert float(linear[-1].weight.detach().std()) == pytest.approx(0.02, rel=0.25)


def test_a_fresh_state_critic_says_nearly_nothing() -> None:
    torch.manual_seed(0)
    value = StateCritic(31)(torch.randn(16, 7, 31), torch.rand(16, 7))
    assert value.shape == (16, 7)
    assert float(value.detach().abs().max()) < 0.1


def test_the_critic_learns_from_elapsed_time() -> None:
    """A value that depends on time alone can only be fitted if time is read."""
    torch.manual_seed(0)
    critic = StateCritic(3, hidden=32)
    optimiser = torch.optim.Adam(critic.parameters(), lr=1e-2)
    obs, elapsed = torch.randn(256, 3), torch.rand(256)
    for _ in range(150):
        optimiser.zero_grad()
        error = ((critic(obs, elapsed) - (1.0 - elapsed)) ** 2).mean()
        error.backward()
        optimiser.step()
    assert float(error.detach()) < 0.2 * float(elapsed.var())
