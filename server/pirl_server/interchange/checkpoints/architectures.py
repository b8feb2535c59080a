"""The kinds of weights that files of other libraries hold: names, sizes, conversion. A new kind is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pirl_server.interchange.checkpoints import model_sizes, smolvla_names, smolvla_sizes, weight_dialects, weight_names
from pirl_server.interchange.checkpoints.source_metadata import Side, Stack
from pirl_server.interchange.checkpoints.tensor_folder import Layout
from pirl_server.interchange.checkpoints.tensor_names import EXPERT_HEAD, Names, sort_names, sort_smolvla_names
from pirl_server.interchange.checkpoints.weight_names import Weights
from pirl_server.model.flow_model import FlowModelConfig


@dataclass(frozen=True)
class Architecture:
    """How one kind of weights is read and written. Canonical names are today's, without lerobot's "model."."""

    families: tuple[str, ...]
    stacks: tuple[Stack, ...]
    """whose programs hold such weights"""
    embedding: str
    """canonical name of the text embedding"""
    sort: Callable[[Iterable[str]], Names]
    sizes: Callable[[Mapping[str, Layout], Side], FlowModelConfig]
    to_ours: Callable[[Mapping[str, Tensor], Any], Weights]
    """called with the model's configuration"""
    to_theirs: Callable[[Mapping[str, Tensor]], Weights]
    joined: Callable[[str, Any], bool]
    """whether a projection becomes part of one of our tensors, by its canonical name and the configuration"""
    unreadable: Callable[[Any], dict[str, str | int]]
    """what config.json must say of a model because its weights' shapes don't"""
    saved_names: Callable[[Iterable[str]], list[str]]
    """what the library saves today, of canonical names: heads that we have not included"""


def _pi0_saved(names: Iterable[str]) -> list[str]:
    """The embedding under its head's name, and the expert's unused head."""
    every = (*names, weight_dialects.HEAD, EXPERT_HEAD)
    return [name for name in every if name != weight_dialects.EMBEDDING]


PI0 = Architecture(
    families=("pi0", "pi05"),
    stacks=("openpi", "lerobot"),
    embedding=weight_dialects.EMBEDDING,
    sort=sort_names,
    sizes=model_sizes.sizes,
    to_ours=lambda weights, config: weight_names.from_openpi(weights),
    to_theirs=weight_names.to_openpi,
    joined=lambda name, config: True,
    unreadable=model_sizes.unreadable,
    saved_names=_pi0_saved,
)
SMOLVLA = Architecture(
    families=("smolvla",),
    stacks=("lerobot",),
    embedding=smolvla_names.EMBEDDING,
    sort=sort_smolvla_names,
    sizes=smolvla_sizes.sizes,
    to_ours=smolvla_names.from_lerobot,
    to_theirs=smolvla_names.to_lerobot,
    joined=smolvla_names.joined,
    unreadable=smolvla_sizes.unreadable,
    saved_names=lambda names: [*names, smolvla_names.HEAD],
)
ARCHITECTURES = (SMOLVLA, PI0)


def architecture_of_names(names: Iterable[str]) -> Architecture:
    """By the names in a file; what is unknown counts as pi0's, whose reader names what is wrong with it."""
    return SMOLVLA if any(smolvla_names.ROOT in name for name in names) else PI0


def architecture_of_family(family: str) -> Architecture:
    """Of a card's family. Raises ValueError for one that no other library has."""
    found = next((each for each in ARCHITECTURES if family in each.families), None)
    if found is None:
        raise ValueError(f"no other library has models of family '{family}'")
    return found


def check_stack(architecture: Architecture, stack: Stack) -> None:
    """Raise ValueError for a library without models of this kind."""
    if stack not in architecture.stacks:
        raise ValueError(f"{stack} has no {architecture.families[0]}: it is {architecture.stacks[0]}'s")
