"""Conditioning on flow time: a shift of pi0's action tokens, or a modulation of pi0.5's norms.

It depends on the time and on nothing else, so a fixed schedule of K steps needs it once.

Shape letters: N times, B batch, H actions, W width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.model.layers.norm import Modulation


class Condition(NamedTuple):
    """One entry per time, or, from `unbind`, the one time of a whole batch."""

    shift: Tensor | None
    """[N, 1 or H, W] pi0: the time half of the action-time MLP's first layer, bias included"""
    modulations: tuple[Modulation, ...]
    """pi0.5: of every norm of the expert in order"""

    def where(self, token_BH: Tensor, other: Condition) -> Condition:
        """This condition for the tokens that are chosen, the other one for the rest. Each is of one time."""
        chosen = token_BH[..., None]
        shift = None
        if self.shift is not None and other.shift is not None:
            shift = torch.where(chosen, self.shift, other.shift)
        norms = zip(self.modulations, other.modulations)
        return Condition(
            shift, tuple(Modulation(*(torch.where(chosen, *pair) for pair in zip(*norm))) for norm in norms)
        )

    def unbind(self) -> list[Condition]:
        """Return N conditions, each for batches whose rows share one time."""
        if self.shift is not None:
            return [Condition(each, ()) for each in self.shift.unbind()]
        columns = [map(Modulation, *(part.unbind() for part in norm)) for norm in self.modulations]
        return [Condition(None, row) for row in zip(*columns)]


SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0


def time_embedding(t: Tensor, width: int) -> Tensor:
    """Sines then cosines [..., W] of t [...] at geometric periods; float64, because the fastest turns 250 times."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=t.device)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** fraction
    angle = t.double()[..., None] * (2.0 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
