"""Model families by the name that a model card carries: a new family is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pirl_server.model.flow_model import ChunkRunner, FlowModel, FlowModelConfig
from pirl_server.model.pi0.compiled import CompiledPi0
from pirl_server.model.pi0.config import Pi0Config, tiny, tiny_state
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.smolvla import config as smolvla
from pirl_server.model.smolvla.config import SmolVlaConfig
from pirl_server.model.smolvla.smolvla import SmolVla


@dataclass(frozen=True)
class Family:
    """How a family's sizes are read from a card, and its network is built from them."""

    read_config: Callable[[Mapping[str, Any]], FlowModelConfig]
    """Raises TypeError on unknown or missing fields, ValueError on bad sizes"""
    build: Callable[[Any], FlowModel]
    compile: Callable[..., ChunkRunner] | None = None
    """called with the network and `batch`, `cameras`, `steps`, `buckets`; None: eager passes only"""


PI0 = Family(Pi0Config.from_dict, Pi0, CompiledPi0)
SMOLVLA = Family(SmolVlaConfig.from_dict, SmolVla)
FAMILIES: Mapping[str, Family] = {"pi0": PI0, "pi05": PI0, "smolvla": SMOLVLA}

LARGEST: Mapping[str, int] = {"depth": 256, "heads": 1024, "kv_heads": 1024, "horizon": 4096, "image_px": 4096}
LARGEST_SIZE = 1 << 20
"""of the other sizes of a model: of its vocabulary, the largest of them"""

PRESETS: Mapping[str, Callable[[int, int, int], FlowModelConfig]] = {
    "tiny-state": tiny_state,
    "tiny": tiny,
    "smolvla-tiny-state": smolvla.tiny_state,
    "smolvla-tiny": smolvla.tiny,
}
"""sizes of a fresh policy, by the name that a training job takes; called with state_dim, action_dim, horizon"""


def read_config(family: str, values: Mapping[str, Any]) -> FlowModelConfig:
    """Sizes as a card stores them. Raises ValueError for an unknown family or a size, and as `Family.read_config`."""
    if family not in FAMILIES:
        raise ValueError(f"family '{family}' is not supported")
    if isinstance(values, Mapping):
        _check_sizes(values)
    return FAMILIES[family].read_config(values)


def _check_sizes(values: Mapping[str, Any]) -> None:
    """Before anything is built of them, even on the meta device: a hostile depth would take minutes."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            _check_sizes(value)
            continue
        most = LARGEST.get(key, LARGEST_SIZE)
        if (type(value) is int and not 1 <= value <= most) or (key in LARGEST and type(value) is not int):
            raise ValueError(f"{key} {value!r} of the model must be a whole number, 1 to {most}")


def build(config: FlowModelConfig) -> FlowModel:
    """A network with fresh weights, or without any on torch's meta device."""
    return FAMILIES[config.family].build(config)
