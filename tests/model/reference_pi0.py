"""pi0 and pi0.5 from their description, plain and slow: one row, one head and one token block at a time, float64.

One joint pass over every token, padding included, under the full block mask; no cache, no cutting, no joined
projections. It reads weights by openpi's names and shares no code with the package.

Shape letters: T prefix tokens, S suffix tokens, W width, E head dim, H horizon, D action dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
GEMMA = "paligemma_with_expert."
PALIGEMMA = GEMMA + "paligemma.model."


@dataclass(frozen=True)
class Sizes:
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    vision_depth: int
    vision_heads: int
    patch_px: int


@dataclass(frozen=True)
class Row:
    """One row of a batch."""

    images: list[Tensor]
    """[3, px, px]"""
    present: list[bool]
    tokens: list[int]
    real: list[bool]
    state: Tensor | None
    x: Tensor
    t: float


def affine(w: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ w[name + ".weight"].T
    return out + w[name + ".bias"] if name + ".bias" in w else out


def silu(x: Tensor) -> Tensor:
    return x / (1.0 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softmax_mix(logits: Tensor, sees: Tensor, values: Tensor) -> Tensor:
    weights = torch.where(sees, torch.exp(logits - logits.max()), 0.0)
    return weights / weights.sum(-1, keepdim=True) @ values


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[name + ".weight"] + w[name + ".bias"]


def see_image(w: Weights, sizes: Sizes, image: Tensor) -> Tensor:
    """Patch tokens of one image in the language model's width."""
    tower, P = PALIGEMMA + "vision_tower.vision_model.", sizes.patch_px
    kernel = w[tower + "embeddings.patch_embedding.weight"]
    rows = range(0, image.shape[1], P)
    patches = [(kernel * image[:, i : i + P, j : j + P]).sum(dim=(1, 2, 3)) for i in rows for j in rows]
    x = torch.stack(patches) + w[tower + "embeddings.patch_embedding.bias"]
    x = x + w[tower + "embeddings.position_embedding.weight"]
    for n in range(sizes.vision_depth):
        block = f"{tower}encoder.layers.{n}."
        normed = layer_norm(w, block + "layer_norm1", x)
        q, k, v = (affine(w, f"{block}self_attn.{part}_proj", normed) for part in "qkv")
        E, heads = q.shape[-1] // sizes.vision_heads, []
        for head in range(sizes.vision_heads):
            mine = slice(head * E, (head + 1) * E)
            logits = q[:, mine] @ k[:, mine].T / math.sqrt(E)
            heads.append(softmax_mix(logits, torch.ones_like(logits, dtype=torch.bool), v[:, mine]))
        x = x + affine(w, block + "self_attn.out_proj", torch.cat(heads, dim=-1))
        x = x + affine(
            w, block + "mlp.fc2", gelu(affine(w, block + "mlp.fc1", layer_norm(w, block + "layer_norm2", x)))
        )
    return affine(w, PALIGEMMA + "multi_modal_projector.linear", layer_norm(w, tower + "post_layernorm", x))


def embed_time(t: float, width: int) -> Tensor:
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    angle = 2.0 * math.pi * t / (4e-3 * (4.0 / 4e-3) ** fraction)
    return torch.cat([angle.sin(), angle.cos()])


def rms_norm(w: Weights, name: str, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
    """Normed tokens and the gate of the residual."""
    normed = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    if name + ".weight" in w:
        return normed * (1.0 + w[name + ".weight"]), 1.0
    assert condition is not None
    scale, shift, gate = affine(w, name + ".dense", condition).chunk(3)
    return normed * (1.0 + scale) + shift, gate


def turn(x: Tensor, position: Tensor) -> Tensor:
    """Rotary embedding of one head [tokens, E]."""
    half = x.shape[-1] // 2
    angle = position[:, None] * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    a, b = x[:, :half], x[:, half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def attend(w: Weights, sizes: Sizes, normed: list[tuple[str, Tensor]], position: Tensor, sees: Tensor) -> Tensor:
    """Joint attention of both towers' tokens, heads side by side."""
    parts = [torch.cat([affine(w, f"{block}self_attn.{part}_proj", x) for block, x in normed]) for part in "qkv"]
    E, heads = sizes.head_dim, []
    for head in range(sizes.heads):
        shared = head // (sizes.heads // sizes.kv_heads)
        q = turn(parts[0][:, head * E : (head + 1) * E], position)
        k = turn(parts[1][:, shared * E : (shared + 1) * E], position)
        heads.append(softmax_mix(q @ k.T / math.sqrt(E), sees, parts[2][:, shared * E : (shared + 1) * E]))
    return torch.cat(heads, dim=-1)


def joint_pass(
    w: Weights, sizes: Sizes, prefix: Tensor, suffix: Tensor, position: Tensor, sees: Tensor, condition: Tensor | None
) -> Tensor:
    """Expert outputs [S, W] after the final norm."""
    towers = (PALIGEMMA + "language_model.", GEMMA + "gemma_expert.model.")
    streams = [prefix, suffix]
    for n in range(sizes.depth):
        blocks = [f"{tower}layers.{n}." for tower in towers]
        normed = [rms_norm(w, b + "input_layernorm", x, condition) for b, x in zip(blocks, streams)]
        mixed = attend(w, sizes, [(b, x) for b, (x, _) in zip(blocks, normed)], position, sees)
        pieces = [mixed[: len(prefix)], mixed[len(prefix) :]]
        for i, block in enumerate(blocks):
            x = streams[i] + normed[i][1] * affine(w, block + "self_attn.o_proj", pieces[i])
            y, gate = rms_norm(w, block + "post_attention_layernorm", x, condition)
            hidden = gelu(affine(w, block + "mlp.gate_proj", y)) * affine(w, block + "mlp.up_proj", y)
            streams[i] = x + gate * affine(w, block + "mlp.down_proj", hidden)
    return rms_norm(w, towers[1] + "norm", streams[1], condition)[0]


def embed_suffix(w: Weights, row: Row) -> tuple[Tensor, Tensor | None]:
    """Suffix tokens [S, W] and the condition of adaptive norms."""
    action = affine(w, "action_in_proj", row.x)
    time = embed_time(row.t, action.shape[-1])
    if "time_mlp_in.weight" in w:
        return action, silu(affine(w, "time_mlp_out", silu(affine(w, "time_mlp_in", time))))
    both = torch.cat([action, time.expand_as(action)], dim=-1)
    action = affine(w, "action_time_mlp_out", silu(affine(w, "action_time_mlp_in", both)))
    assert row.state is not None
    return torch.cat([affine(w, "state_proj", row.state)[None], action]), None


def velocity(w: Weights, sizes: Sizes, row: Row) -> Tensor:
    """Velocity [H, D] of one row."""
    table = w[PALIGEMMA + "language_model.embed_tokens.weight"]
    text = [table[token] * math.sqrt(table.shape[1]) for token in row.tokens]
    images = [see_image(w, sizes, image) for image in row.images]
    exists = [here for image, here in zip(images, row.present) for _ in image] + row.real
    suffix, condition = embed_suffix(w, row)
    valid = torch.tensor(exists + [True] * len(suffix))
    state_tokens = len(suffix) - len(row.x)
    block = torch.tensor([0] * len(exists) + [1] * state_tokens + [2] * len(row.x))
    sees = (block[:, None] >= block[None, :]) & valid[None, :] | torch.eye(len(block), dtype=torch.bool)
    prefix = torch.cat([*images, torch.stack(text)])
    out = joint_pass(w, sizes, prefix, suffix, valid.cumsum(0) - 1, sees, condition)
    return affine(w, "action_out_proj", out[state_tokens:])
