"""Names of openpi's and lerobot's PyTorch pi0 weights in terms of ours: renames, and projections joined into one.

Shape letters: none; weights are moved whole or stacked along their output axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
RENAMES = (
    (VISION + "embeddings.", "vision."),
    (VISION + "encoder.", "vision."),
    (VISION, "vision."),
    ("paligemma_with_expert.paligemma.model.multi_modal_projector.linear.", "projector."),
    ("paligemma_with_expert.paligemma.model.language_model.embed_tokens.", "embed_tokens."),
    ("paligemma_with_expert.paligemma.model.language_model.", "language."),
    ("paligemma_with_expert.gemma_expert.model.", "expert."),
    (".mlp.", "."),
)
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
HEADS = re.compile(r"lm_head\.weight$")


def from_openpi(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for `Pi0.load_state_dict`. Language heads are dropped: pi0 emits no text."""
    named: dict[str, Tensor] = {}
    for key, value in weights.items():
        if HEADS.search(key):
            continue
        for theirs, ours in RENAMES:
            key = key.replace(theirs, ours)
        named[key] = value
    for joined, parts in JOINED.items():
        for first in [key for key in named if f".{parts[0]}." in key]:
            stacked = [named.pop(first.replace(parts[0], part)) for part in parts]
            named[first.replace(parts[0], joined)] = torch.cat(stacked)
    return named
