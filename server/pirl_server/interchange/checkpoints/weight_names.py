"""Maps openpi's PyTorch weight names to ours and back: renames, and projections joined into one.

A key that is not in the table keeps its name, so that who loads the result can name it. Weights are moved whole or
stacked along their output axis, so there and back is the same to the last bit. Other layouts: `weight_dialects.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]

PALIGEMMA = "paligemma_with_expert.paligemma.model."
VISION = PALIGEMMA + "vision_tower.vision_model."
TEXT = PALIGEMMA + "language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
UNUSED = (
    "paligemma_with_expert.paligemma.lm_head.weight",
    "paligemma_with_expert.gemma_expert.lm_head.weight",
    EXPERT + "embed_tokens.weight",
)
"""language heads and the expert's token embedding: pi0 emits no text and its expert reads none"""
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


class Rule(NamedTuple):
    """One group of names: theirs and ours up to the part that is alike; N stands for a layer's number."""

    theirs: str
    ours: str
    alike: str
    """pattern"""


def _gemma(theirs: str, ours: str) -> tuple[Rule, ...]:
    norm = r"\.(weight|dense\.weight|dense\.bias)"
    return (
        Rule(theirs + "layers.N.mlp.", ours + "layers.N.", r"(gate_up|down)_proj\.weight"),
        Rule(theirs + "layers.N.", ours + "layers.N.", r"self_attn\.(qkv|o)_proj\.weight"),
        Rule(theirs + "layers.N.", ours + "layers.N.", f"(input|post_attention)_layernorm{norm}"),
        Rule(theirs, ours, f"norm{norm}"),
    )


def siglip_rules(theirs: str) -> tuple[Rule, ...]:
    """Of a vision tower whose names start so in the file."""
    return (
        Rule(theirs + "embeddings.", "vision.", r"patch_embedding\.(weight|bias)|position_embedding\.weight"),
        Rule(theirs + "encoder.layers.N.mlp.", "vision.layers.N.", r"fc[12]\.(weight|bias)"),
        Rule(theirs + "encoder.", "vision.", r"layers\.\d+\.(layer_norm[12]|self_attn\.(qkv|out)_proj)\.(weight|bias)"),
        Rule(theirs, "vision.", r"post_layernorm\.(weight|bias)"),
    )


RULES = (
    *siglip_rules(VISION),
    Rule(PALIGEMMA + "multi_modal_projector.linear.", "projector.", "weight|bias"),
    Rule(TEXT, "", r"embed_tokens\.weight"),
    *_gemma(TEXT, "language."),
    *_gemma(EXPERT, "expert."),
)


def from_openpi(weights: Mapping[str, Tensor]) -> Weights:
    """State dict for `Pi0.load_state_dict`. What pi0 has no use for is dropped.

    Raises ValueError for projections that cannot be joined. Tensors of any shape.
    """
    return translated({key: value for key, value in weights.items() if key not in UNUSED}, RULES)


def to_openpi(state_dict: Mapping[str, Tensor]) -> Weights:
    """Inverse of `from_openpi`, without what that dropped. Split projections are views of the joined ones.

    Tensors of any shape.
    """
    return translated_back(state_dict, RULES)


def translated(weights: Mapping[str, Tensor], rules: Sequence[Rule]) -> Weights:
    """Their weights under our names, projections joined. Raises ValueError for those that cannot be joined.

    Tensors of any shape.
    """
    forth = [(rule.theirs, rule.ours, rule.alike) for rule in rules]
    return {_renamed(key, forth): value for key, value in _joined(weights).items()}


def translated_back(state_dict: Mapping[str, Tensor], rules: Sequence[Rule]) -> Weights:
    """Inverse of `translated`: split projections are views of the joined ones. Tensors of any shape."""
    back = [(rule.ours, rule.theirs, rule.alike) for rule in rules]
    theirs: Weights = {}
    for key, value in state_dict.items():
        for part, piece in _split(key, value, state_dict).items():
            theirs[_part_name(key, part, back)] = piece
    return theirs


def _joined(weights: Mapping[str, Tensor]) -> Weights:
    """Projections of one kind stacked under one name; an incomplete set is left as it is, and so is cross-attention."""
    joined: Weights = dict(weights)
    for whole, parts in JOINED.items():
        for first in [key for key in weights if f".{parts[0]}." in key and ".cross_attn." not in key]:
            names = [first.replace(f".{parts[0]}.", f".{part}.") for part in parts]
            if any(name not in weights for name in names):
                continue
            pieces = [joined.pop(name) for name in names]
            if len({piece.shape[1:] for piece in pieces}) > 1:
                raise ValueError(f"'{first}' {tuple(pieces[0].shape)} does not match {', '.join(names[1:])}")
            joined[first.replace(f".{parts[0]}.", f".{whole}.")] = torch.cat(pieces)
    return joined


def _split(key: str, value: Tensor, state_dict: Mapping[str, Tensor]) -> Weights:
    """Pieces by their name: queries are as wide as the output projection's input, keys and values share the rest."""
    if ".gate_up_proj." in key:
        return dict(zip(JOINED["gate_up_proj"], value.chunk(2)))
    if ".qkv_proj." not in key:
        return {"": value}
    attention = key.partition("qkv_proj.")[0]
    outputs = (state_dict.get(attention + name) for name in ("o_proj.weight", "out_proj.weight"))
    queries = next(output.shape[1] for output in outputs if output is not None)
    rest = (len(value) - queries) // 2
    return dict(zip(JOINED["qkv_proj"], torch.split(value, [queries, rest, rest])))


def _part_name(key: str, part: str, rules: list[tuple[str, str, str]]) -> str:
    renamed = _renamed(key, rules)
    return re.sub(r"(qkv|gate_up)_proj", part, renamed) if part else renamed


def _renamed(key: str, rules: list[tuple[str, str, str]]) -> str:
    for source, target, alike in rules:
        pattern = re.escape(source).replace("N", r"(?P<layer>\d+)", source.count(".N.")) + f"(?P<alike>{alike})"
        if match := re.fullmatch(pattern, key):
            return target.replace(".N.", f".{match.groupdict().get('layer')}.") + match["alike"]
    return key
