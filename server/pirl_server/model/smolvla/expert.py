"""SmolVLA's action expert: layers that attend to the prefix and the actions, and layers that attend to the prefix only.

The second kind reads the language model's keys and values, rotated as they are, through projections of its own. These
depend on the observation alone, so a chunk needs them once, not once per denoise step.

Shape letters: B batch, H actions, T prefix tokens, W width, V key/value heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pirl_server.model.layers.gemma import KeyValue, Turn, rotate
from pirl_server.model.layers.llama import Block, Layer, LlamaNorm
from pirl_server.model.layers.tower_config import StackConfig, TowerConfig


class View(NamedTuple):
    """Mask and positions of one kind of layer."""

    bias: Tensor | None
    """over [B, 1, group H, tokens]; None: each action sees all"""
    turn: Turn


class CrossAttention(nn.Module):
    """Grouped-query attention of the actions over another tower's keys and values, projected once more."""

    def __init__(self, config: StackConfig, width: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(width, queries, bias=False)
        self.k_proj = nn.Linear(keys, keys, bias=False)
        self.v_proj = nn.Linear(keys, keys, bias=False)
        self.o_proj = nn.Linear(queries, width, bias=False)

    def project(self, cache: KeyValue) -> KeyValue:
        """The prefix as this layer reads it: keys and values [B, V, T, E] each, to the same shapes.

        lerobot's base has these two projections in float32 between others in bfloat16.
        """
        return self._projected(self.k_proj, cache[0]), self._projected(self.v_proj, cache[1])

    def _projected(self, projection: nn.Linear, part: Tensor) -> Tensor:
        flat = part.transpose(1, 2).flatten(2).contiguous().to(projection.weight.dtype)
        projected: Tensor = projection(flat).to(self.o_proj.weight.dtype)
        return projected.reshape(*flat.shape[:2], self.kv_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, view: View, cache: KeyValue) -> Tensor:
        """Attention output [B, H, W] of x [B, H, W] over keys and values that `project` made, [B or 1, V, T, E]."""
        B, H, _ = x.shape
        q = rotate(self.q_proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2), view.turn)
        k, v = (part.expand(B, -1, -1, -1) for part in cache)
        # Heads of one group share their keys: laid out as extra queries they cost no copy of the keys.
        folded = q.reshape(B, self.kv_heads, -1, self.head_dim)
        out = scaled_dot_product_attention(folded, k, v, attn_mask=view.bias)
        return self.o_proj(out.view(B, self.heads, H, self.head_dim).transpose(1, 2).reshape(B, H, -1))  # type: ignore[no-any-return]


class CrossLayer(Block):
    """Cross-attention, then the MLP."""

    def __init__(self, config: StackConfig, tower: TowerConfig) -> None:
        super().__init__(tower)
        self.cross_attn = CrossAttention(config, tower.width)

    def forward(self, x: Tensor, view: View, cache: KeyValue) -> Tensor:
        """One block: x [B, H, W] to [B, H, W]. `cache` as `CrossAttention.project` returns it."""
        return self.feed_forward(x + self.cross_attn(self.input_layernorm(x), view, cache))


class Expert(nn.Module):
    """A stack of both kinds of blocks and a final norm."""

    def __init__(self, config: StackConfig, tower: TowerConfig, self_attention_every: int) -> None:
        super().__init__()
        self.group, self.head_dim = config.heads // config.kv_heads, config.head_dim
        kinds = [CrossLayer if i % self_attention_every else Layer for i in range(config.depth)]
        self.layers = nn.ModuleList(kind(config, tower) for kind in kinds)
        self.norm = LlamaNorm(tower.width)

    @property
    def dtype(self) -> torch.dtype:
        """What the blocks compute in."""
        return cast(Block, self.layers[0]).down_proj.weight.dtype

    def read(self, cache: Sequence[KeyValue]) -> list[KeyValue]:
        """The prefix as each layer reads it: per layer keys and values [B, V, T, E]."""
        pairs = zip(self.layers, cache, strict=True)
        return [layer.cross_attn.project(each) if isinstance(layer, CrossLayer) else each for layer, each in pairs]

    def forward(self, x: Tensor, causal: View, cross: View, cache: Sequence[KeyValue]) -> Tensor:
        """Action tokens [B, H, W] to normed outputs [B, H, W]; `cache` as `read` returns it."""
        for layer, each in zip(self.layers, cache, strict=True):
            if isinstance(layer, CrossLayer):
                x = layer(x, cross, each)
            else:
                x, _ = layer(x, causal.bias, causal.turn, each)
        return self.norm(x)  # type: ignore[no-any-return]
