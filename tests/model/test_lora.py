"""Adapters: nothing changes when they are put in, only they learn, and merging gives the plain model that they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pirl_server.model import families
from pirl_server.model.flow_model import FlowModel
from pirl_server.model.layers.lora import LoraConfig, LoraLinear, adapt, merged_state_dict
from pirl_server.model.pi0.config import tiny
from pirl_server.model.smolvla import config as smolvla

CONFIGS = {"pi0": replace(tiny(8, 3, 4), depth=2), "smolvla": replace(smolvla.tiny(8, 3, 4), depth=2)}
LORA = LoraConfig(rank=3, alpha=6.0)
every = pytest.mark.parametrize("family", CONFIGS)


def model(family: str = "pi0") -> FlowModel:
    torch.manual_seed(0)
    return families.build(CONFIGS[family])


def run(network: FlowModel, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(2, 1, 3, 64, 64, generator=random).to(dtype) * 2 - 1
    tokens, mask = torch.tensor([[257, 65, 259], [257, 259, 256]]), torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    state, x, t = torch.randn(2, 8, generator=random), torch.randn(2, 4, 3, generator=random), torch.tensor([0.3, 0.9])
    prefix = network.encode_prefix(images, torch.ones(2, 1, dtype=torch.bool), tokens, mask)
    return network.velocity(prefix, state.to(dtype), x.to(dtype), t.to(dtype))


def train(network: FlowModel, parameters: list[torch.nn.Parameter], dtype: torch.dtype = torch.float32) -> None:
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    for _ in range(5):
        optimizer.zero_grad()
        (run(network, dtype) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every
def test_adapting_changes_no_bit(family: str, dtype: torch.dtype) -> None:
    plain, adapted = model(family).to(dtype), model(family).to(dtype)
    adapters = adapt(adapted, LORA)
    assert all(parameter.dtype == dtype for parameter in adapters)
    with torch.no_grad():
        assert torch.equal(run(plain, dtype), run(adapted, dtype))
        adapters[1].fill_(1e-3)  # negative control: an update that is not zero is seen
        assert not torch.equal(run(plain, dtype), run(adapted, dtype))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@every
def test_merged_weights_are_the_trained_function_in_a_plain_model(
    family: str, dtype: torch.dtype, close: float
) -> None:
    network, plain = model(family).to(dtype), model(family).to(dtype)
    with torch.no_grad():
        before = run(network, dtype)
    train(network, adapt(network, LORA), dtype)
    names = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    merged = merged_state_dict(network)
    assert {name: tensor.shape for name, tensor in merged.items()} == names
    plain.load_state_dict(merged)
    with torch.no_grad():
        after = run(network, dtype)
        assert float((after - before).abs().max()) > 1e-2, "it has learnt something"
        assert float((run(plain, dtype) - after).abs().max()) < close


@every
def test_only_adapters_learn(family: str) -> None:
    network = model(family)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    adapters = adapt(network, LORA)
    train(network, adapters)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trainable)
    assert {name for name, p in network.named_parameters() if p.grad is not None} <= set(trainable)
    # The expert reads keys and values only, so nobody reads what the last language layer does after them.
    unread = [f"language.layers.1.{name}." for name in ("self_attn.o_proj", "gate_up_proj", "down_proj")]
    reached = {name for name, p in trainable.items() if not name.startswith(tuple(unread))}
    assert all(float(trainable[name].detach().abs().max()) > 0 for name in reached)
    assert len(reached) == len(trainable) - 6


@every
def test_their_number_is_rank_times_inputs_and_outputs_of_each_projection(family: str) -> None:
    network: Any = model(family)
    layers = [layer for tower in (network.language, network.expert) for layer in tower.modules()]
    sizes = [layer.in_features + layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert sum(parameter.numel() for parameter in adapt(network, LORA)) == LORA.rank * sum(sizes)


def test_a_tower_can_be_left_out() -> None:
    network = model()
    adapt(network, replace(LORA, towers=("expert",)))
    adapted = [name for name, module in network.named_modules() if isinstance(module, LoraLinear)]
    assert adapted
    assert all(name.startswith("expert.") for name in adapted)


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ValueError, match="no tower 'ears'"):
        adapt(model(), replace(LORA, towers=("ears",)))
    with pytest.raises(ValueError, match="rank 0 must be at least 1"):
        adapt(model(), replace(LORA, rank=0))
