"""A Gemma tower that reads another tower's keys and values: the language model and the action expert are both one.

The prefix never attends to the suffix, so the two towers of pi0 need no joint pass: the language model runs once and
leaves its keys and values; the expert puts its own behind them.

Shape letters: B batch, S tokens of this tower, T tokens attended to, W width, N query heads, V key/value heads,
E head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention

from pirl_server.model.config import Pi0Config, TowerConfig

KeyValue = tuple[Tensor, Tensor]
"""keys (rotated) and values, each [B, V, T, E]; a batch of 1 stands for every row"""


class RMSNorm(nn.Module):
    """x / rms(x) * (1 + weight), computed in float32 or wider."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return rms_norm(x.to(wide), self.weight.shape, 1.0 + self.weight.to(wide), eps=1e-6).to(x.dtype)


def rotary(position_BS: Tensor, head_dim: int) -> Tensor:
    """Unit complex numbers [B, 1, S, E/2] that turn by position, base 10000."""
    frequency = 10_000.0 ** (-torch.arange(0, head_dim, 2, device=position_BS.device, dtype=torch.float32) / head_dim)
    angle = position_BS[:, None, :, None] * frequency
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + E/2}) [B, N, S, E], in float32 or wider.

    The pairs come out as neighbours. Queries and keys are permuted alike, so their products do not change, and one
    complex product is several times faster than shuffling halves.
    """
    first, second = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
    return torch.view_as_real(torch.complex(first, second) * turn).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention over cached keys and values followed by its own."""

    def __init__(self, config: Pi0Config, width: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.qkv_proj = nn.Linear(width, (config.heads + 2 * config.kv_heads) * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, turn: Tensor, cache: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Attention output [B, S, W] and this tower's own keys and values."""
        B, S, _ = x.shape
        qkv = self.qkv_proj(x).view(B, S, -1, self.head_dim).transpose(1, 2)
        qk, v = torch.split(qkv, [self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = torch.split(rotate(qk, turn), [self.heads, self.kv_heads], dim=1)
        own = (k, v)
        if cache is not None:
            k, v = (torch.cat([old.expand(B, -1, -1, -1), new], dim=2) for old, new in zip(cache, own))
        # Heads of one group share their keys: laid out as extra queries they cost no copy of the keys.
        folded = q.reshape(B, self.kv_heads, -1, self.head_dim)
        out = scaled_dot_product_attention(folded, k, v, attn_mask=bias)
        return self.o_proj(out.view(B, self.heads, S, self.head_dim).transpose(1, 2).reshape(B, S, -1)), own


class Layer(nn.Module):
    """Pre-norm block: attention, then a gated tanh-gelu MLP."""

    def __init__(self, config: Pi0Config, tower: TowerConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(tower.width)
        self.self_attn = Attention(config, tower.width)
        self.post_attention_layernorm = RMSNorm(tower.width)
        self.gate_up_proj = nn.Linear(tower.width, 2 * tower.mlp_dim, bias=False)
        self.down_proj = nn.Linear(tower.mlp_dim, tower.width, bias=False)

    def forward(self, x: Tensor, bias: Tensor, turn: Tensor, cache: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """One block: output [B, S, W] and own keys and values."""
        attended, own = self.self_attn(self.input_layernorm(x), bias, turn, cache)
        x = x + attended
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x)).chunk(2, dim=-1)
        return x + self.down_proj(gelu(gate, approximate="tanh") * up), own


class Gemma(nn.Module):
    """A stack of blocks and a final norm. Embeddings belong to whoever feeds it."""

    def __init__(self, config: Pi0Config, tower: TowerConfig) -> None:
        super().__init__()
        self.group, self.head_dim = config.heads // config.kv_heads, config.head_dim
        self.layers = nn.ModuleList(Layer(config, tower) for _ in range(config.depth))
        self.norm = RMSNorm(tower.width)

    def forward(
        self, x: Tensor, mask: Tensor, position_BS: Tensor, cache: list[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Tokens [B, S, W], who sees whom [B, S, T] (bool) and positions [B, S] to outputs and per-layer cache.

        Mask and positions may have batch 1. Every query must see at least one key.
        """
        turn = rotary(position_BS, self.head_dim)
        # Additive and folded once here: given a bool mask, attention would convert it again in every layer.
        bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, float("-inf"))
        bias = bias.repeat(1, self.group, 1)[:, None]
        caches = []
        for i, layer in enumerate(self.layers):
            x, own = layer(x, bias, turn, None if cache is None else cache[i])
            caches.append(own)
        return self.norm(x), caches
