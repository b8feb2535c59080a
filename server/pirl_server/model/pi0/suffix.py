"""What the suffix is conditioned on: the prefix (keys and values, masks, positions) and the flow time.

Masks are additive biases for `scaled_dot_product_attention`. Blocks: prefix | state | actions. Prefix tokens see each
other, the state sees the prefix and itself, actions see all. Masked tokens are attended to by none.

Time is a shift of pi0's action tokens, or a modulation of pi0.5's norms. It depends on the time and on nothing else, so
a fixed schedule of K steps needs it once.

Shape letters: B batch, T prefix tokens (in the masks: tokens attended to), S suffix tokens, H actions, N times,
W width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pirl_server.model.layers.attention_mask import key_bias, with_suffix
from pirl_server.model.layers.gemma import Gemma, KeyValue, Turn, rotary
from pirl_server.model.layers.norm import Modulation
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


def hide_actions_from_state(bias: Tensor, actions: int, group: int) -> Tensor:
    """Bias [B, 1, 1, T + 1 + H] to [B, 1, group (1 + H), T + 1 + H]: the state token, first, sees no action.

    Query heads that share a key head are laid out as more queries, so rows repeat once per head of a group.
    """
    rows = bias.repeat(1, 1, 1 + actions, 1)
    rows[:, :, 0, -actions:] = float("-inf")
    return rows.repeat(1, 1, group, 1)


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
