"""Maps lerobot's SmolVLA weight names to ours and back: renames, and projections joined into one.

Which expert layers only read the prefix is no part of a name: their key and value projections are called like those of
the others, so the model's sizes decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from pirl_server.interchange.checkpoints.weight_names import Rule, Weights, siglip_rules, translated, translated_back
from pirl_server.model.smolvla.config import SmolVlaConfig

ROOT = "vlm_with_expert."
VLM = ROOT + "vlm.model."
VISION, TEXT, EXPERT = VLM + "vision_model.", VLM + "text_model.", ROOT + "lm_expert."
CONNECTOR, EMBEDDING = VLM + "connector.modality_projection.proj.", TEXT + "embed_tokens.weight"
HEAD = ROOT + "vlm.lm_head.weight"
"""of the language model, which emits no text here"""
UNUSED = (HEAD, EXPERT + "embed_tokens.weight", EXPERT + "lm_head.weight")
OWN = re.compile(re.escape(EXPERT) + r"layers\.(\d+)\.(self|cross)_attn\.")


def _llama(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rule(theirs + "layers.N.mlp.", ours + "layers.N.", r"(gate_up|down)_proj\.weight"),
        Rule(theirs + "layers.N.", ours + "layers.N.", r"self_attn\.(qkv|o)_proj\.weight"),
        Rule(theirs + "layers.N.", ours + "layers.N.", r"cross_attn\.[qkvo]_proj\.weight"),
        Rule(theirs + "layers.N.", ours + "layers.N.", r"(input|post_attention)_layernorm\.weight"),
        Rule(theirs, ours, r"norm\.weight"),
    )


RULES = (
    *siglip_rules(VISION),
    Rule(CONNECTOR, "connector.proj.", "weight"),
    Rule(TEXT, "", r"embed_tokens\.weight"),
    *_llama(TEXT, "language."),
    *_llama(EXPERT, "expert."),
)


def from_lerobot(weights: Mapping[str, Tensor], config: SmolVlaConfig) -> Weights:
    """State dict for `SmolVla.load_state_dict`, of names without "model." in front. Unused heads are dropped.

    Raises ValueError for projections that cannot be joined. Tensors of any shape.
    """
    used = {_crossed(key, config): value for key, value in weights.items() if key not in UNUSED}
    return translated(used, RULES)


def to_lerobot(state_dict: Mapping[str, Tensor]) -> Weights:
    """Inverse of `from_lerobot`, without what that dropped. Split projections are views of the joined ones.

    Tensors of any shape.
    """
    theirs = translated_back(state_dict, RULES)
    return {OWN.sub(EXPERT + r"layers.\1.self_attn.", key): value for key, value in theirs.items()}


def joined(name: str, config: SmolVlaConfig) -> bool:
    """Whether a projection of that name becomes part of a larger one; those of cross-attention don't."""
    return ".cross_attn." not in _crossed(name, config)


def _crossed(key: str, config: SmolVlaConfig) -> str:
    """The name with the kind of its attention in it."""
    match = OWN.match(key)
    if match is None or int(match[1]) % config.self_attention_every == 0:
        return key
    return key.replace(".self_attn.", ".cross_attn.")
