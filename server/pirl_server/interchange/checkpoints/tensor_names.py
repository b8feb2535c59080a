"""Sorts tensor names: weights of the policy, the text embedding, statistics, and unused tensors.

Names of today's openpi are the canonical ones: `interchange.checkpoints.weight_dialects` makes them of other programs'
and older ones, `interchange.checkpoints.weight_names` turns them into ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from pirl_server.interchange.checkpoints import smolvla_names
from pirl_server.interchange.checkpoints.weight_dialects import (
    EMBEDDING,
    HEAD,
    from_old_nesting,
    from_transformers,
    without_model,
)
from pirl_server.interchange.checkpoints.weight_names import UNUSED

STATISTICS = re.compile(r"(normalize_inputs|normalize_targets|unnormalize_outputs)\.(so\d+[\w-]*_)?buffer_")
"""lerobot before 0.4 kept its statistics among the weights; SmolVLA's base those of several data sets"""
WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "_fsdp_wrapped_module.", "policy.", "actor.")
"""what other programs put before each name when they save the model within something else"""
EXPERT_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"


@dataclass(frozen=True)
class Names:
    """Every tensor of a checkpoint, by what it is."""

    weights: dict[str, str]
    """canonical name -> name in the file, without the text embedding"""
    text: tuple[str, ...]
    """names in the file of a text embedding that is one tensor under one or two names; else it is among the weights"""
    unused: tuple[str, ...]
    statistics: tuple[str, ...]


def sort_names(names: Iterable[str]) -> Names:
    """Say what each tensor is. Raises ValueError for two of one meaning, or without a text embedding."""
    names = sorted(names)
    _check_wrapped(names)
    statistics = tuple(name for name in names if STATISTICS.match(name))
    weights = canonical_names([name for name in names if not STATISTICS.match(name)])
    text = tuple(weights.pop(name) for name in (HEAD, EMBEDDING) if name in weights)
    if not text:
        found = f"; there is '{names[0]}'" if names else ""
        raise ValueError(f"tensor '{EMBEDDING}' is missing, and so is '{HEAD}'{found}")
    return Names(weights, text, tuple(weights.pop(name) for name in UNUSED if name in weights), statistics)


COMPILED = "model._orig_mod."
"""what torch.compile put into the names of a SmolVLA"""


def sort_smolvla_names(names: Iterable[str]) -> Names:
    """The same for a SmolVLA, whose text embedding is tied to nothing. Raises ValueError for two of one meaning."""
    names = sorted(names)
    _check_wrapped(names)
    statistics = tuple(name for name in names if STATISTICS.match(name))
    weights: dict[str, str] = {}
    for name in (name for name in names if not STATISTICS.match(name)):
        meaning = name.removeprefix(COMPILED).removeprefix("model.")
        if meaning in weights:
            raise ValueError(f"tensor '{name}' occurs twice, as '{weights[meaning]}' too")
        weights[meaning] = name
    unused = tuple(weights.pop(name) for name in smolvla_names.UNUSED if name in weights)
    return Names(weights, (), unused, statistics)


def _check_wrapped(names: list[str]) -> None:
    for name in names:
        if ".lora_A." in name or ".lora_B." in name:
            raise ValueError(f"tensor '{name}' is of an adapter (LoRA): merge it into the weights and save those")
        if prefix := next((each for each in WRAPPERS if name.startswith(each)), None):
            raise ValueError(f"tensor '{name}' was saved with its wrapper: save it without the '{prefix}' in front")


def canonical_names(names: list[str]) -> dict[str, str]:
    """Canonical name -> the given one. Raises ValueError for two names of one weight."""
    numbered = {name: torch.tensor(i) for i, name in enumerate(names)}
    renamed = from_old_nesting(from_transformers(without_model(numbered)))
    found = {meaning: names[int(number)] for meaning, number in renamed.items()}
    if lost := set(names) - set(found.values()):
        raise ValueError(f"tensor '{min(lost)}' occurs twice, under an older and a newer name")
    return found
