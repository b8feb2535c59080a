"""A Llama tower: SmolVLA's language model. Gemma's attention, other norms and another gate.

Norms multiply by their weight, not by 1 + weight, with another epsilon; the MLP's gate is SiLU. Rotary embeddings have
Gemma's wavelength, whatever the language model was made with: SmolVLA was trained so.

Shape letters: B batch, S tokens of this tower, T tokens attended to, W width, V key/value heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pirl_server.model.layers.gemma import Attention, KeyValue, Turn
from pirl_server.model.layers.norm import LLAMA_EPS, normalised, widened
from pirl_server.model.layers.tower_config import StackConfig, TowerConfig


class LlamaNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of x [..., W]; the result has the same shape."""
        y = normalised(widened(x), LLAMA_EPS)
        return (y * self.weight.to(y.dtype)).to(x.dtype)


class Block(nn.Module):
    """What every block ends with: a pre-norm MLP with a SiLU gate. Attention before it is its subclass's."""

    def __init__(self, tower: TowerConfig) -> None:
        super().__init__()
        self.input_layernorm = LlamaNorm(tower.width)
        self.post_attention_layernorm = LlamaNorm(tower.width)
        self.gate_up_proj = nn.Linear(tower.width, 2 * tower.mlp_dim, bias=False)
        self.down_proj = nn.Linear(tower.mlp_dim, tower.width, bias=False)

    def feed_forward(self, x: Tensor) -> Tensor:
        """x [B, S, W] and what the MLP adds. Returns the same shape."""
        gate, up = self.gate_up_proj(self.post_attention_layernorm(x)).chunk(2, dim=-1)
        return x + self.down_proj(silu(gate) * up)  # type: ignore[no-any-return]


class Layer(Block):
    """Attention over cached keys and values and its own, then the MLP."""

    def __init__(self, config: StackConfig, tower: TowerConfig) -> None:
        super().__init__(tower)
        self.self_attn = Attention(config, tower.width)

    def keys_values(self, x: Tensor, turn: Turn) -> KeyValue:
        """All that is needed of the last block of a tower whose output is not read.

        x [B, S, W]; keys and values [B, V, S, E].
        """
        return self.self_attn.project(self.input_layernorm(x), turn)[1]

    def forward(self, x: Tensor, bias: Tensor | None, turn: Turn, cache: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """One block: output [B, S, W] and own keys and values [B, V, S, E] each. `bias` as in `Llama.forward`."""
        attended, own = self.self_attn(self.input_layernorm(x), bias, turn, cache)
        return self.feed_forward(x + attended), own


class Llama(nn.Module):
    """A stack of blocks and a final norm. Embeddings belong to its caller."""

    def __init__(self, config: StackConfig, tower: TowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, tower) for _ in range(config.depth))
        self.norm = LlamaNorm(tower.width)

    @property
    def dtype(self) -> torch.dtype:
        """What the blocks compute in."""
        return cast(Layer, self.layers[0]).self_attn.qkv_proj.weight.dtype

    def forward(self, x: Tensor, bias: Tensor | None, turn: Turn) -> tuple[Tensor, list[KeyValue]]:
        """Tokens [B, S, W] to outputs [B, S, W] and per-layer keys and values, [B, V, S, E] each.

        `bias` broadcasts over [B, 1, group S, S], None lets everyone see all; `turn` is `gemma.rotary` of the
        positions.
        """
        caches = []
        for layer in self.layers:
            x, own = layer(x, bias, turn, None)
            caches.append(own)
        return self.norm(x), caches

    def keys_values(
        self, x: Tensor, bias: Tensor | None, turn: Turn, cache: Sequence[KeyValue] | None = None
    ) -> list[KeyValue]:
        """Per-layer keys and values alone, of tokens behind those of `cache`: what only an output needs is spared.

        x [B, S, W], `bias` over [B, 1, group S, T]; each [B, V, S, E].
        """
        *body, last = self.layers
        caches = []
        for i, layer in enumerate(body):
            x, own = layer(x, bias, turn, None if cache is None else cache[i])
            caches.append(own)
        return [*caches, cast(Layer, last).keys_values(x, turn)]
