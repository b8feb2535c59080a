"""What the vision-language half leaves for the action expert: computed once per observation, read at every step.

Shape letters: L layers, B batch, V key/value heads, T prefix tokens, E head dim, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
    pooled: Tensor
    """[B, W]: mean output over the tokens that exist, what a critic may read"""

    def select(self, index: Tensor) -> Prefix:
        """Rows for a batch: index [M] int64 into B. A batch of 1 is returned as it is."""
        if len(self.mask) == 1:
            return self
        return Prefix(
            self.keys[:, index], self.values[:, index], self.mask[index], self.count[index], self.pooled[index]
        )

    def detach(self) -> Prefix:
        """The same numbers without their graph, for training the expert on a frozen prefix."""
        return Prefix(self.keys.detach(), self.values.detach(), self.mask, self.count, self.pooled.detach())
