"""SmolVLA from its description, plain and slow: one row, one head and one layer at a time, float64.

Prefix and suffix in one pass over every token, padding included, under the full mask; no cache, no cutting, no joined
projections. It reads weights by lerobot's names and shares no code with the package.

Shape letters: T prefix tokens (the state is the last), H actions, W width, E head dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from reference_pi0 import Row, Weights, affine, embed_time, gelu, layer_norm, silu, softmax_mix, turn
from torch import Tensor

ROOT = "vlm_with_expert."
VLM = ROOT + "vlm.model."


@dataclass(frozen=True)
class Sizes:
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    vision_depth: int
    vision_heads: int
    patch_px: int
    shuffle: int
    self_every: int


def see_image(w: Weights, sizes: Sizes, image: Tensor) -> Tensor:
    """Tokens of one image in the language model's width, not scaled."""
    tower, P = VLM + "vision_model.", sizes.patch_px
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
        hidden = gelu(affine(w, block + "mlp.fc1", layer_norm(w, block + "layer_norm2", x)))
        x = x + affine(w, block + "mlp.fc2", hidden)
    x = layer_norm(w, tower + "post_layernorm", x)
    side, S = len(rows), sizes.shuffle
    squares = [
        torch.cat([x[(i + a) * side + j + b] for a in range(S) for b in range(S)])
        for i in range(0, side, S)
        for j in range(0, side, S)
    ]
    return affine(w, VLM + "connector.modality_projection.proj", torch.stack(squares))


def rms_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[name + ".weight"]


def feed_forward(w: Weights, block: str, x: Tensor) -> Tensor:
    y = rms_norm(w, block + "post_attention_layernorm", x)
    hidden = silu(affine(w, block + "mlp.gate_proj", y)) * affine(w, block + "mlp.up_proj", y)
    return x + affine(w, block + "mlp.down_proj", hidden)


def per_head(sizes: Sizes, q: Tensor, k: Tensor, v: Tensor, sees: Tensor) -> Tensor:
    """Attention of queries over keys, all turned already, heads side by side."""
    E, heads = sizes.head_dim, []
    for head in range(sizes.heads):
        shared = head // (sizes.heads // sizes.kv_heads)
        mine, theirs = slice(head * E, (head + 1) * E), slice(shared * E, (shared + 1) * E)
        heads.append(softmax_mix(q[:, mine] @ k[:, theirs].T / math.sqrt(E), sees, v[:, theirs]))
    return torch.cat(heads, dim=-1)


def turned(sizes: Sizes, x: Tensor, position: Tensor) -> Tensor:
    return torch.cat([turn(head, position) for head in x.split(sizes.head_dim, dim=1)], dim=1)


def expert_outputs(w: Weights, sizes: Sizes, prefix: Tensor, suffix: Tensor, position: Tensor, sees: Tensor) -> Tensor:
    """Both towers layer by layer; `sees` over all tokens. Returns the expert's outputs [H, W] after the final norm."""
    T, H = len(prefix), len(suffix)
    for n in range(sizes.depth):
        vlm, own = f"{VLM}text_model.layers.{n}.", f"{ROOT}lm_expert.layers.{n}."
        normed = rms_norm(w, vlm + "input_layernorm", prefix)
        q, k, v = (affine(w, f"{vlm}self_attn.{part}_proj", normed) for part in "qkv")
        q, k = turned(sizes, q, position[:T]), turned(sizes, k, position[:T])
        mixed = per_head(sizes, q, k, v, sees[:T, :T])
        asked = rms_norm(w, own + "input_layernorm", suffix)
        query = affine(w, own + "self_attn.q_proj", asked)
        if n % sizes.self_every == 0:
            keys = turned(sizes, affine(w, own + "self_attn.k_proj", asked), position[T:])
            values = affine(w, own + "self_attn.v_proj", asked)
            query = turned(sizes, query, position[T:])
            read = per_head(sizes, query, torch.cat([k, keys]), torch.cat([v, values]), sees[T:])
        else:
            query = turned(sizes, query, torch.arange(H))
            keys, values = affine(w, own + "self_attn.k_proj", k), affine(w, own + "self_attn.v_proj", v)
            read = per_head(sizes, query, keys, values, sees[T:, :T])
        prefix = feed_forward(w, vlm, prefix + affine(w, vlm + "self_attn.o_proj", mixed))
        suffix = feed_forward(w, own, suffix + affine(w, own + "self_attn.o_proj", read))
    return rms_norm(w, ROOT + "lm_expert.norm", suffix)


def velocity(w: Weights, sizes: Sizes, row: Row) -> Tensor:
    """Velocity [H, D] of one row."""
    table = w[VLM + "text_model.embed_tokens.weight"]
    scale = math.sqrt(table.shape[1])
    images = [see_image(w, sizes, image) * scale for image in row.images]
    exists = [here for image, here in zip(images, row.present) for _ in image] + row.real + [True]
    assert row.state is not None
    prefix = torch.cat([*images, table[row.tokens] * scale, affine(w, "state_proj", row.state)[None]])
    action = affine(w, "action_in_proj", row.x)
    both = torch.cat([action, embed_time(row.t, action.shape[-1]).expand_as(action)], dim=-1)
    suffix = affine(w, "action_time_mlp_out", silu(affine(w, "action_time_mlp_in", both)))
    valid = torch.tensor(exists + [True] * len(suffix))
    block = torch.tensor([0] * (len(exists) - 1) + list(range(1, 2 + len(suffix))))
    sees = (block[:, None] >= block[None, :]) & valid[None, :] | torch.eye(len(block), dtype=torch.bool)
    out = expert_outputs(w, sizes, prefix, suffix, valid.cumsum(0) - 1, sees)
    return affine(w, "action_out_proj", out)
