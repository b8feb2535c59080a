"""Numbers that are not finite are refused with their name and place, before a step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pirl_server.algorithm.finite import gradient_norm, require_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_named(bad: float) -> None:
    reward = torch.zeros(4, 3)
    reward[2, 1] = reward[3, 0] = bad
    with pytest.raises(ValueError, match=rf"^reward: 2 of 12 values are not finite, the first is {bad} at \[2, 1\]"):
        require_finite("reward", reward)


def test_finite_numbers_pass() -> None:
    require_finite("reward", torch.tensor([torch.finfo(torch.float32).max, 0.0]))
    require_finite("nothing", torch.zeros(0))


def test_the_gradient_norm_is_torchs() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Linear(1, 1))
    net[:3](torch.randn(5, 3)).sum().backward()
    expected = nn.utils.clip_grad_norm_(net.parameters(), math.inf)
    torch.testing.assert_close(gradient_norm(net.named_parameters()), expected)
    assert float(gradient_norm([])) == 0.0


def test_a_gradient_that_is_no_number_is_named_and_nothing_has_moved() -> None:
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    (net(torch.ones(1, 2)).sum() * math.nan).backward()
    with pytest.raises(ValueError, match="gradient of 'weight': 2 of 2 values are not finite"):
        gradient_norm(net.named_parameters())
    assert torch.equal(net.weight, before)
    optimiser.step()
    assert not torch.isfinite(net.weight).any()  # what the refusal prevents
