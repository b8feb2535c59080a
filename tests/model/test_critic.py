"""Value networks: initial state, inputs, and that they can learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pirl_server.model.critic import StateCritic, ValueHead, expert_value, expert_value_input, vlm_value
from pirl_server.model.prefix import Prefix


def test_expert_input_is_the_horizon_mean_and_can_be_detached() -> None:
    features = torch.randn(2, 4, 8, requires_grad=True)
    torch.testing.assert_close(expert_value_input(features, detach=False), features.mean(dim=1))
    assert expert_value_input(features, detach=False).requires_grad
    assert not expert_value_input(features, detach=True).requires_grad


def test_expert_input_may_be_the_executed_tokens_only() -> None:
    features = torch.randn(2, 4, 8)
    torch.testing.assert_close(expert_value_input(features, detach=False, executed=2), features[:, :2].mean(dim=1))


def test_v_expert_is_the_mean_over_denoise_steps_and_one_step_estimates_it() -> None:
    """Eq. 16. The head is not linear: averaging features first would be another number."""
    torch.manual_seed(0)
    head, features = ValueHead(8, (64, 32, 16)), 4.0 * torch.randn(3, 4, 5, 8)
    value = expert_value(head, features, detach=False)
    each = torch.stack([expert_value(head, features[:, k : k + 1], detach=False) for k in range(4)])
    assert value.shape == (3,)
    torch.testing.assert_close(value, each.mean(dim=0))
    assert float((each - value).detach().abs().max()) > 1e-3
    assert float((head(features.mean(dim=(1, 2))) - value).detach().abs().max()) > 1e-4
    assert head(features[:, 0]).shape == (3, 5)  # unpooled: one value per control step


def pooled_prefix(pooled: torch.Tensor | None) -> Prefix:
    nothing = torch.zeros(1, 2, 1, 3, 4)
    return Prefix(nothing, nothing, torch.ones(2, 3, dtype=torch.bool), torch.tensor([3, 3]), pooled)


def test_v_vlm_reads_the_pooled_prefix() -> None:
    torch.manual_seed(0)
    head, pooled = ValueHead(8, (16, 16, 16)), torch.randn(2, 8)
    torch.testing.assert_close(vlm_value(head, pooled_prefix(pooled), detach=True), head(pooled))
    with pytest.raises(ValueError, match="pooled=True"):
        vlm_value(head, pooled_prefix(None), detach=True)


@pytest.mark.parametrize("detach", [True, False])
def test_a_detached_critic_leaves_the_policy_alone(detach: bool) -> None:
    head = ValueHead(8, (16, 16, 16))
    features, pooled = torch.randn(2, 4, 5, 8, requires_grad=True), torch.randn(2, 8, requires_grad=True)
    total = expert_value(head, features, detach=detach) + vlm_value(head, pooled_prefix(pooled), detach=detach)
    total.sum().backward()
    assert (features.grad is None) == (pooled.grad is None) == detach
    assert all(p.grad is not None for p in head.parameters())


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
