"""A Gemma tower that can attend to another tower's keys and values: language model and action expert.

The prefix never attends to the suffix, so the two towers of pi0 need no joint pass: the language model runs once and
leaves its keys and values; the expert puts its own behind them. Positions are rotary embeddings.

Shape letters: B batch, S tokens of this tower, T tokens attended to, W width, N query heads, V key/value heads,
E head dim, N times in `modulations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pirl_server.model.layers.gelu import gelu_tanh
from pirl_server.model.layers.norm import AdaRMSNorm, Modulation, RMSNorm, residual
from pirl_server.model.layers.tower_config import StackConfig, TowerConfig

KeyValue = tuple[Tensor, Tensor]
"""keys (rotated) and values, each [B, V, T, E]; a batch of 1 stands for every row. Another tower's may be of another
dtype: this tower computes in its own"""


# Rotary position embedding, half-split: the pair (x_i, x_{i + E/2}) turns by its position times a frequency.

BASE = 10_000.0

Turn = tuple[Tensor, Tensor]
"""per token and channel the cosine, and the sine with the sign of its half; each [B, 1, S, E], float32 or wider"""


def rotary(position_BS: Tensor, head_dim: int, dtype: torch.dtype) -> Turn:
    """How far each token's pairs turn; float32 or wider, whatever the model computes in."""
    wide = torch.promote_types(dtype, torch.float32)
    fraction = torch.arange(0, head_dim, 2, device=position_BS.device, dtype=wide) / head_dim
    angle = position_BS[:, None, :, None] * (1.0 / BASE**fraction)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turn [B, N, S, E]; the result has the same shape, contiguous: heads become queries without a copy."""
    cos, sin = turn
    wide = x.to(cos.dtype)
    return (wide.roll(x.shape[-1] // 2, dims=-1) * sin).addcmul_(wide, cos).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention over cached keys and values followed by its own."""

    def __init__(self, config: StackConfig, width: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.qkv_proj = nn.Linear(width, (config.heads + 2 * config.kv_heads) * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, width, bias=False)

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, KeyValue]:
        """Queries [B, N, S, E] and this tower's own keys and values. x [B, S, W]; keys and values [B, V, S, E] each."""
        qkv = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        qk, v = torch.split(qkv, [self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = torch.split(rotate(qk, turn), [self.heads, self.kv_heads], dim=1)
        return q, (k, v)

    def forward(self, x: Tensor, bias: Tensor | None, turn: Turn, cache: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Attention output [B, S, W] and this tower's own keys and values.

        x [B, S, W], bias as in `Gemma.forward`; keys and values [B, V, S, E] each.
        """
        B, S, _ = x.shape
        q, own = self.project(x, turn)
        k, v = own
        if cache is not None:
            k, v = (torch.cat([old.expand(B, -1, -1, -1), new], dim=2).to(new.dtype) for old, new in zip(cache, own))
        # Heads of one group share their keys: laid out as extra queries they cost no copy of the keys.
        folded = q.reshape(B, self.kv_heads, -1, self.head_dim)
        out = scaled_dot_product_attention(folded, k, v, attn_mask=bias)
        return self.o_proj(out.view(B, self.heads, S, self.head_dim).transpose(1, 2).reshape(B, S, -1)), own


class Layer(nn.Module):
    """Pre-norm block: attention, then a gated tanh-gelu MLP."""

    def __init__(self, config: StackConfig, tower: TowerConfig, norm: type[RMSNorm] | type[AdaRMSNorm]) -> None:
        super().__init__()
        self.input_layernorm = norm(tower.width)
        self.self_attn = Attention(config, tower.width)
        self.post_attention_layernorm = norm(tower.width)
        self.gate_up_proj = nn.Linear(tower.width, 2 * tower.mlp_dim, bias=False)
        self.down_proj = nn.Linear(tower.mlp_dim, tower.width, bias=False)

    def keys_values(self, x: Tensor, turn: Turn) -> KeyValue:
        """All that is needed of the last block of a tower whose output is not read.

        x [B, S, W]; keys and values [B, V, S, E].
        """
        return self.self_attn.project(self.input_layernorm(x), turn)[1]

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        turn: Turn,
        cache: KeyValue | None,
        modulations: Sequence[Modulation | None] = (None, None),
    ) -> tuple[Tensor, KeyValue]:
        """One block: output [B, S, W] and own keys and values.

        x [B, S, W], bias as in `Gemma.forward`; keys and values [B, V, S, E] each.
        """
        first, second = modulations
        attended, own = self.self_attn(self.input_layernorm(x, first), bias, turn, cache)
        x = residual(x, attended, first)
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x, second)).chunk(2, dim=-1)
        return residual(x, self.down_proj(gelu_tanh(gate) * up), second), own


class Gemma(nn.Module):
    """A stack of blocks and a final norm. Embeddings belong to its caller."""

    def __init__(self, config: StackConfig, tower: TowerConfig, *, adaptive: bool = False) -> None:
        super().__init__()
        norm: type[RMSNorm] | type[AdaRMSNorm] = AdaRMSNorm if adaptive else RMSNorm
        self.group, self.head_dim = config.heads // config.kv_heads, config.head_dim
        self.layers = nn.ModuleList(Layer(config, tower, norm) for _ in range(config.depth))
        self.norm = norm(tower.width)

    @property
    def dtype(self) -> torch.dtype:
        """What the blocks compute in."""
        return cast(Layer, self.layers[0]).self_attn.qkv_proj.weight.dtype

    def modulations(self, condition_NSW: Tensor) -> tuple[Modulation, ...]:
        """Of every adaptive norm in order, for N times of S tokens."""
        norms = [module for module in self.modules() if isinstance(module, AdaRMSNorm)]
        return tuple(norm.modulation(condition_NSW) for norm in norms)

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None,
        turn: Turn,
        cache: Sequence[KeyValue] | None = None,
        modulations: Sequence[Modulation] = (),
    ) -> tuple[Tensor, list[KeyValue]]:
        """Tokens [B, S, W] to outputs and per-layer keys and values.

        `bias` broadcasts over [B, 1, group S, T], None lets everyone see all; `turn` is `rotary` of the positions.
        Outputs [B, S, W], keys and values [B, V, S, E] each.
        """
        timed: Sequence[Modulation | None] = modulations or [None] * (2 * len(self.layers) + 1)
        caches = []
        for i, layer in enumerate(self.layers):
            x, own = layer(x, bias, turn, None if cache is None else cache[i], timed[2 * i : 2 * i + 2])
            caches.append(own)
        out: Tensor = self.norm(x, timed[-1])
        return out, caches

    def keys_values(self, x: Tensor, bias: Tensor | None, turn: Turn) -> list[KeyValue]:
        """Per-layer keys and values alone: the last block's attention and MLP and the final norm are spared.

        x [B, S, W]; each [B, V, S, E].
        """
        *body, last = self.layers
        caches = []
        for layer in body:
            x, own = layer(x, bias, turn, None)
            caches.append(own)
        return [*caches, last.keys_values(x, turn)]  # type: ignore[operator]
