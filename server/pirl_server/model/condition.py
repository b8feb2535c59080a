"""How flow time reaches the expert: a shift of pi0's action tokens, or a modulation of pi0.5's norms.

It depends on the time and on nothing else, so a fixed schedule of K steps needs it once.

Shape letters: N times, W width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pirl_server.model.norm import Modulation


class Condition(NamedTuple):
    """One entry per time, or, from `unbind`, the one time of a whole batch."""

    shift: Tensor | None
    """[N, 1, W] pi0: the time half of the action-time MLP's first layer, bias included"""
    modulations: tuple[Modulation, ...]
    """pi0.5: of every norm of the expert in order"""

    def unbind(self) -> list[Condition]:
        """Return N conditions, each for batches whose rows share one time."""
        if self.shift is not None:
            return [Condition(each, ()) for each in self.shift.unbind()]
        columns = [map(Modulation, *(part.unbind() for part in norm)) for norm in self.modulations]
        return [Condition(None, row) for row in zip(*columns)]
