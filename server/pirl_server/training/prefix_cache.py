"""Prefixes of many observations: a batch at a time with their graph, or all of them at once and kept.

With vision and language frozen, a prefix depends on the observation alone. PPO then encodes each decision's once per
update and every epoch selects rows, so that only the action expert runs in the minibatches.

Shape letters: M observations, P distinct prompts, L prompt tokens, T prefix tokens, C cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Images

View = Callable[[Tensor], Tensor]
"""images [B, C, 3, h, w] -> images"""


def encode_rows(
    policy: FlowPolicy,
    tokens_PL: Tensor,
    mask_PL: Tensor,
    prompt_M: Tensor,
    images: Images | None,
    view: View | None = None,
) -> Prefix:
    """One prefix row per entry of `prompt_M`, of which `images` are the pictures. Without images, each prompt once."""
    device = next(policy.model.parameters()).device
    if images is None:
        used, inverse = torch.unique(prompt_M, return_inverse=True)
        encoded = policy.model.encode_prefix(None, None, tokens_PL[used].to(device), mask_PL[used].to(device))
        return encoded.select(inverse.to(device))
    pixels, exist = policy.scale_images(images)
    seen = pixels if view is None else view(pixels)
    return policy.model.encode_prefix(
        seen.to(device), exist.to(device), tokens_PL[prompt_M].to(device), mask_PL[prompt_M].to(device)
    )


@torch.no_grad()
def cache_rows(
    policy: FlowPolicy, tokens_PL: Tensor, mask_PL: Tensor, prompt_M: Tensor, images: Images | None, batch: int
) -> Prefix:
    """`encode_rows` of all rows without a graph, `batch` rows at a time into one set of tensors."""
    if len(prompt_M) <= batch:
        return encode_rows(policy, tokens_PL, mask_PL, prompt_M, images).detach()
    text_M = mask_PL.sum(dim=1)[prompt_M]
    kept: Prefix | None = None
    for rows in torch.split(torch.arange(len(prompt_M)), batch):
        pictures = None if images is None else {name: each[rows.numpy()] for name, each in images.items()}
        part = encode_rows(policy, tokens_PL, mask_PL, prompt_M[rows], pictures)
        if kept is None:
            kept = _room(part, len(prompt_M), part.mask.shape[1] + int(text_M.max() - text_M[rows].max()))
        tokens = part.mask.shape[1]
        kept.keys[:, rows, :, :tokens], kept.values[:, rows, :, :tokens] = part.keys, part.values
        kept.mask[rows, :tokens], kept.count[rows] = part.mask, part.count
    assert kept is not None
    return replace(kept, full=bool(kept.mask.all()))


def _room(part: Prefix, rows: int, tokens: int) -> Prefix:
    """Space for `rows` rows of `tokens` tokens, none of which exists yet."""
    layers, _, heads, _, width = part.keys.shape
    cache = (layers, rows, heads, tokens, width)
    return Prefix(
        part.keys.new_zeros(cache),
        part.values.new_zeros(cache),
        part.mask.new_zeros(rows, tokens),
        part.count.new_zeros(rows),
    )
