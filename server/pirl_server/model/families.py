"""Model families by the name that a model card carries: a new family is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pirl_server.model.flow_model import FlowModel, FlowModelConfig
from pirl_server.model.pi0.config import Pi0Config, tiny, tiny_state
from pirl_server.model.pi0.pi0 import Pi0


@dataclass(frozen=True)
class Family:
    """How a family's sizes are read from a card, and its network is built from them."""

    read_config: Callable[[Mapping[str, Any]], FlowModelConfig]
    """Raises TypeError on unknown or missing fields, ValueError on bad sizes"""
    build: Callable[[Any], FlowModel]


PI0 = Family(Pi0Config.from_dict, Pi0)
FAMILIES: Mapping[str, Family] = {"pi0": PI0, "pi05": PI0}

PRESETS: Mapping[str, Callable[[int, int, int], FlowModelConfig]] = {"tiny-state": tiny_state, "tiny": tiny}
"""sizes of a fresh policy, by the name that a training job takes; called with state_dim, action_dim, horizon"""


def read_config(family: str, values: Mapping[str, Any]) -> FlowModelConfig:
    """Sizes as a card stores them. Raises ValueError for an unknown family, and as `Family.read_config`."""
    if family not in FAMILIES:
        raise ValueError(f"family '{family}' is not supported")
    return FAMILIES[family].read_config(values)


def build(config: FlowModelConfig) -> FlowModel:
    """A network with fresh weights, or without any on torch's meta device."""
    return FAMILIES[config.family].build(config)
