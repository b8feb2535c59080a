"""Context of the suffix: keys and values of the prefix, attention mask and positions.

Shape letters: B batch, T prefix tokens, H actions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.model.layers.attention_mask import hide_actions_from_state, key_bias, with_suffix
from pirl_server.model.layers.gemma import Gemma, KeyValue
from pirl_server.model.layers.rotary import Turn, rotary
from pirl_server.model.prefix import Prefix


class Context(NamedTuple):
    """What a pass of the expert needs besides its tokens, in the order in which it takes them."""

    bias: Tensor | None
    turn: Turn
    cache: list[KeyValue]
    """per layer"""


def suffix_context(prefix: Prefix, actions: int, expert: Gemma, *, state: bool) -> Context:
    """Context of H action tokens behind the prefix, with a state token before them or without."""
    tokens = actions + state
    bias = None
    if state or not prefix.full:
        bias = key_bias(with_suffix(prefix.mask, tokens), expert.dtype)
    if state and bias is not None:
        bias = hide_actions_from_state(bias, actions, expert.group)
    position_BS = prefix.count[:, None] + torch.arange(tokens, device=prefix.count.device)
    turn = rotary(position_BS, expert.head_dim, expert.dtype)
    return Context(bias, turn, list(zip(prefix.keys, prefix.values)))
