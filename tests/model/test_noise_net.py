"""The noise net: its sizes, what it reads, and that likelihood teaches it and the expert behind it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from pirl_server.algorithm.chain import chain_log_prob, sample_chain
from pirl_server.algorithm.flow_noise import bounded_std, transition
from pirl_server.model import families
from pirl_server.model.byte_tokens import encode_all
from pirl_server.model.noise_net import NoiseNet, noisy_velocity
from pirl_server.model.pi0.config import tiny_state
from pirl_server.model.smolvla import config as smolvla


def test_sizes_are_the_papers() -> None:
    linear = [layer for layer in NoiseNet(1024, 32).modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(1024, 128), (128, 64), (64, 32)]
    assert not any(isinstance(layer, nn.Dropout | nn.LayerNorm) for layer in NoiseNet(1024, 32).modules())


def test_a_fresh_net_is_near_the_geometric_mean_and_each_token_has_its_own_noise() -> None:
    torch.manual_seed(0)
    std = bounded_std(NoiseNet(64, 5)(torch.randn(3, 4, 64)), 0.08, 0.16).detach()
    assert std.shape == (3, 4, 5)
    assert float((std - 0.1131).abs().max()) < 0.02
    assert float(std.std(dim=1).min()) > 0.0


class Expert(nn.Module):
    """Features of [x, t], and a velocity linear in them, as the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        time = t_B[:, None, None].expand_as(x_BHD[..., :1])
        features = torch.tanh(self.inner(torch.cat([x_BHD, time], dim=-1)))
        return self.out(features), features


def test_likelihood_teaches_the_net_and_the_expert_and_recomputes_to_the_same_bits() -> None:
    torch.manual_seed(0)
    expert, net, step = Expert(), NoiseNet(16, 3, (8, 8)), partial(transition, low=0.08, high=0.16)
    velocity = noisy_velocity(expert, net)
    x, noise = torch.randn(6, 5, 3), torch.randn(6, 4, 5, 3)
    with torch.no_grad():
        drawn = sample_chain(velocity, x, noise, torch.ones(6, dtype=torch.bool), step)
    again, std = chain_log_prob(velocity, drawn.chain, step)
    assert torch.equal(again, drawn.log_prob)
    std.log().mean().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in net.parameters())
    assert expert.inner.weight.grad is not None
    assert float(expert.out.weight.grad.abs().max()) == 0.0  # the velocity has no part in the noise's size


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
@torch.no_grad()
def test_the_models_own_features_carry_noise_through_sampler_and_learner(family: str) -> None:
    """The denoiser samples, the whole model recomputes: the same density, up to rounding."""
    torch.manual_seed(0)
    sizes = {"state_dim": 5, "action_dim": 3, "horizon": 4}
    config = smolvla.tiny_state(**sizes) if family == "smolvla" else replace(tiny_state(**sizes), family=family)  # type: ignore[arg-type]
    model, net = families.build(config).double().eval(), NoiseNet(config.expert.width, 3).double()
    tokens, mask = encode_all(["push the cube"] * 6, config.max_tokens)
    prefix, state = model.encode_prefix(None, None, tokens, mask), torch.randn(6, 5, dtype=torch.float64)
    x, noise = torch.randn(6, 4, 3, dtype=torch.float64), torch.randn(6, 4, 4, 3, dtype=torch.float64)
    step = partial(transition, low=0.08, high=0.16)
    sampler = noisy_velocity(model.denoiser(prefix, state, 4).predict, net)
    drawn = sample_chain(sampler, x, noise, torch.ones(6, dtype=torch.bool), step)

    def predict(x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        return model.velocity_and_features(prefix, state, x_BHD, t_B)

    again, std = chain_log_prob(noisy_velocity(predict, net), drawn.chain, step)
    torch.testing.assert_close(again, drawn.log_prob, atol=1e-9, rtol=0)
    torch.testing.assert_close(std, drawn.std, atol=1e-12, rtol=0)
    assert float(std.std()) > 0.0
