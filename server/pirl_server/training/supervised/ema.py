"""Exponential moving average of the weights, for the cost of one copy of the trained ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ema:
    """Average of the given parameters over the calls of `update`.

    The decay of step n is min(decay, (1 + n) / (10 + n)): an average with a fixed decay of 0.999 would still hold a
    third of the initial weights after a thousand steps. openpi's decay for fine-tuning is 0.99.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"EMA decay {decay} must be between 0 and 1")
        self._parameters = list(parameters)
        self._decay, self._steps = decay, 0
        self.average: list[Tensor] = [parameter.detach().clone() for parameter in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now; call it after each optimiser step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self.average, list(self._parameters), 1.0 - decay)

    def resume(self, steps: int) -> None:
        """Continue after so many steps; `average` is restored by the caller."""
        self._steps = steps

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the parameters."""
        for parameter, average in zip(self._parameters, self.average):
            parameter.copy_(average)
