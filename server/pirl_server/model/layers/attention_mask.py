"""Attention masks as additive biases for `scaled_dot_product_attention`.

Blocks: prefix | state | actions. Prefix tokens see each other, the state sees the prefix and itself, actions see all.
Masked tokens are attended to by none.

Shape letters: B batch, T tokens attended to, S suffix tokens, H actions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def key_bias(exists_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Bias [B, 1, 1, T] that hides the tokens that do not exist from every query.

    A row without any token sees all of them: attention over nothing would be NaN, and such a row is not read.
    """
    visible_BT = exists_BT | ~exists_BT.any(dim=1, keepdim=True)
    return torch.zeros_like(visible_BT, dtype=dtype).masked_fill(~visible_BT, float("-inf"))[:, None, None]


def with_suffix(prefix_BT: Tensor, tokens: int) -> Tensor:
    """Which tokens exist [B, T + S]: the prefix's, and all of the suffix."""
    return pad(prefix_BT, (0, tokens), value=True)


def hide_actions_from_state(bias: Tensor, actions: int, group: int) -> Tensor:
    """Bias [B, 1, 1, T + 1 + H] to [B, 1, group (1 + H), T + 1 + H]: the state token, first, sees no action.

    Query heads that share a key head are laid out as more queries, so rows repeat once per head of a group.
    """
    rows = bias.repeat(1, 1, 1 + actions, 1)
    rows[:, :, 0, -actions:] = float("-inf")
    return rows.repeat(1, 1, group, 1)
