"""Masks as additive biases for `scaled_dot_product_attention`: minus infinity hides.

Query heads that share a key head are laid out as more queries, so rows repeat once per head of a group.

Shape letters: B batch, T tokens attended to (in `with_suffix`: of the prefix), S suffix tokens.
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


def causal_bias(prefix_BT: Tensor, tokens: int, group: int, dtype: torch.dtype) -> Tensor:
    """Bias [B, 1, group S, T + S]: each token of the suffix sees the prefix, itself and those before it."""
    before_SS = torch.ones(tokens, tokens, dtype=torch.bool, device=prefix_BT.device).tril()
    rows = (len(prefix_BT), tokens, -1)
    visible_BST = torch.cat([prefix_BT[:, None].expand(rows), before_SS[None].expand(rows)], dim=2)
    bias_BST = torch.zeros_like(visible_BST, dtype=dtype).masked_fill(~visible_BST, float("-inf"))
    return bias_BST.repeat(1, group, 1)[:, None]
