"""Low-rank adapters (arXiv 2106.09685) on the attention and MLP projections of the Gemma towers.

An adapted layer computes W x + (alpha / rank) up (down x) with W frozen. `up` starts at 0, so adapting changes nothing
until the first step. Adapters live inside the layers: the other names of the state dict stay what they were, and
`merged_state_dict` is that of a plain model. Norms, embeddings, vision and the projections around the towers get none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

DOWN, UP = "lora_down", "lora_up"


@dataclass(frozen=True)
class LoraConfig:
    """Which towers are adapted and how."""

    rank: int
    alpha: float
    """the update is scaled by alpha / rank, so that the learning rate need not follow the rank"""
    towers: tuple[str, ...] = ("language", "expert")
    """names of the model's towers"""


class LoraLinear(nn.Linear):
    """A linear layer with a trainable low-rank update. Takes over the weight and bias of `base`, frozen."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """The base layer's output and the scaled update. x [..., in] to [..., out]."""
        return super().forward(x) + self.scale * linear(linear(x, self.lora_down), self.lora_up)

    def merged(self) -> Tensor:
        """W + (alpha / rank) up down, of the weight's dtype. Shape [out, in]."""
        return self.weight + self.scale * (self.lora_up @ self.lora_down)


def adapt(model: nn.Module, config: LoraConfig) -> list[nn.Parameter]:
    """Put adapters into the towers in place, freeze everything else and return the adapters' parameters.

    Raises ValueError for a rank below 1 and for a tower that the model does not have.
    """
    if config.rank < 1:
        raise ValueError(f"LoRA rank {config.rank} must be at least 1")
    for tower in config.towers:
        found = [name for name, module in model.named_modules() if _is_target(name, module, tower)]
        if not found:
            raise ValueError(f"the model has no tower '{tower}' with projections to adapt")
        for name in found:
            parent, _, leaf = name.rpartition(".")
            base = model.get_submodule(name)
            assert isinstance(base, nn.Linear)
            setattr(model.get_submodule(parent), leaf, LoraLinear(base, config.rank, config.alpha))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith((DOWN, UP)))
    return list(adapter_parameters(model))


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The adapters' parameters, in the model's order."""
    return (parameter for name, parameter in model.named_parameters() if name.endswith((DOWN, UP)))


@torch.no_grad()
def merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """State dict of the plain model that computes the same: the names and shapes from before `adapt`.

    Tensors of any shape.
    """
    merged = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((DOWN, UP))}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            merged[f"{name}.weight"] = module.merged()
    return merged


def _is_target(name: str, module: nn.Module, tower: str) -> bool:
    return name.startswith(f"{tower}.") and name.endswith("_proj") and type(module) is nn.Linear
