"""The image and language prefix for the action expert: computed once per observation, read at every step.

Shape letters: L layers, B batch, V key/value heads, T prefix tokens, S more tokens, E head dim,
W width, M rows chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the prefix. With batch 1 it stands for every row of a batch, at no cost per row."""

    keys: Tensor
    """[L, B, V, T, E], rotated"""
    values: Tensor
    """[L, B, V, T, E]"""
    mask: Tensor
    """[B, T] bool: which tokens exist"""
    count: Tensor
    """[B] int64: how many exist, which is where the suffix's positions start"""
    pooled: Tensor | None = None
    """[B, W]: mean output over the tokens that exist, what a critic may read; None unless asked for"""
    full: bool = False
    """known to have no token that does not exist: attention needs no mask"""

    def select(self, index: Tensor) -> Prefix:
        """Rows for a batch: index [M] int64 into B. A batch of 1 is returned as it is."""
        if len(self.mask) == 1:
            return self
        pooled = None if self.pooled is None else self.pooled[index]
        return Prefix(
            self.keys[:, index], self.values[:, index], self.mask[index], self.count[index], pooled, self.full
        )

    def padded(self, tokens: int) -> Prefix:
        """With tokens that do not exist appended, up to so many."""
        if not (more := tokens - self.mask.shape[1]):
            return self
        keys, values = (pad(part, (0, 0, 0, more)) for part in (self.keys, self.values))
        return Prefix(keys, values, pad(self.mask, (0, more), value=False), self.count, self.pooled)

    @classmethod
    def stack(cls, parts: Sequence[Prefix]) -> Prefix:
        """The rows of all parts, in order, padded to the longest."""
        longest = max(part.mask.shape[1] for part in parts)
        padded = [part.padded(longest) for part in parts]
        pooled = [part.pooled for part in padded if part.pooled is not None]
        return cls(
            torch.cat([part.keys for part in padded], dim=1),
            torch.cat([part.values for part in padded], dim=1),
            torch.cat([part.mask for part in padded]),
            torch.cat([part.count for part in padded]),
            torch.cat(pooled) if len(pooled) == len(padded) else None,
            all(part.full for part in padded),
        )

    def extended(self, keys: Tensor, values: Tensor) -> Prefix:
        """With tokens appended, given as keys and values [L, B, V, S, E] each; a shared prefix becomes one per row."""
        rows, more = (-1, keys.shape[1], -1, -1, -1), keys.shape[3]
        return Prefix(
            torch.cat([self.keys.expand(rows), keys], dim=3),
            torch.cat([self.values.expand(rows), values], dim=3),
            pad(self.mask, (0, more), value=True),
            self.count + more,
            full=self.full,
        )

    def detach(self) -> Prefix:
        """The same numbers without their graph, for training the expert on a frozen prefix."""
        pooled = None if self.pooled is None else self.pooled.detach()
        return Prefix(self.keys.detach(), self.values.detach(), self.mask, self.count, pooled, self.full)


def positions(mask_BT: Tensor) -> Tensor:
    """Position of each token [B, T]: tokens that do not exist take none."""
    return mask_BT.cumsum(dim=1) - 1


def compact(x_BTW: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Move the tokens that exist to the front of their row, in order, and cut what no row needs.

    Positions come from the mask, so nothing changes but the cost: absent cameras and padding take no time. Returns
    tokens [B, T', W] and mask [B, T'], T' <= T.
    """
    longest = max(int(mask_BT.sum(dim=1).max()), 1)
    if longest == mask_BT.shape[1]:
        return x_BTW, mask_BT
    order_BT = mask_BT.int().argsort(dim=1, descending=True, stable=True)[:, :longest]
    return x_BTW.gather(1, order_BT[..., None].expand(-1, -1, x_BTW.shape[-1])), mask_BT.gather(1, order_BT)
