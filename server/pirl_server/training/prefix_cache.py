"""Prefixes of many observations: per batch with gradients, or computed once and cached.

With vision and language frozen, a prefix depends on the observation alone. PPO then encodes each decision's once per
update and every epoch selects rows, so that only the action expert runs in the minibatches.

Shape letters: M observations, P distinct prompts, L prompt tokens, T prefix tokens, C cameras, N environments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Images

PrefixOf = Callable[[Tensor], Prefix]
"""numbers [B] of observations -> their prefixes"""
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
    """One prefix row per entry of `prompt_M`, of which `images` are the images. Without images, each prompt once.

    Images are [M, height, width, 3] by camera.
    """
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


def encoder(
    policy: FlowPolicy,
    tokens_PL: Tensor,
    mask_PL: Tensor,
    prompt_M: Tensor,
    images: Images | None,
    view: View | None = None,
) -> PrefixOf:
    """`encode_rows` of some of M observations at a time, by the weights of that time. Images [M, height, width, 3]."""

    def encode(rows_B: Tensor) -> Prefix:
        seen = None if images is None else {name: each[rows_B.numpy()] for name, each in images.items()}
        return encode_rows(policy, tokens_PL, mask_PL, prompt_M[rows_B], seen, view)

    return encode


def selector(table: Prefix, number_M: Tensor) -> PrefixOf:
    """Rows of prefixes that are kept, by the number of each observation's."""
    return lambda rows_B: table.select(number_M[rows_B].to(table.mask.device))


@torch.no_grad()
def cache_rows(
    policy: FlowPolicy, tokens_PL: Tensor, mask_PL: Tensor, prompt_M: Tensor, images: Images | None, batch: int
) -> Prefix:
    """`encode_rows` of all rows without a graph, `batch` rows at a time into one set of tensors.

    Images are [M, height, width, 3] by camera.
    """
    if len(prompt_M) <= batch:
        return encode_rows(policy, tokens_PL, mask_PL, prompt_M, images).detach()
    text_M, encode = mask_PL.sum(dim=1)[prompt_M], encoder(policy, tokens_PL, mask_PL, prompt_M, images)
    kept: Prefix | None = None
    for rows in torch.split(torch.arange(len(prompt_M)), batch):
        part = encode(rows)
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


# Prefixes that a rollout computed anyway, kept for the learner: with vision and language frozen they are the same.
# Encoding a decision once more for its update costs as much as several epochs of the expert. Small models' prefixes are
# shorter than the pipe is narrow; large ones' are not, and the learner encodes the pixels again.
# Shape letters: T decisions, N environments, L layers, V key/value heads, P prefix tokens, E head dim.

Arrays = Mapping[str, NDArray[np.generic]]
"""keys and values [T, N, L, V, P, E] float32, mask [T, N, P] bool, count [T, N] int64"""
KEEP_BYTES = 1 << 18
"""of one decision's keys and values: more is not sent from a worker to the learner"""


def row_bytes(prefix: Prefix) -> int:
    """Bytes of one row's keys and values."""
    return 2 * prefix.keys.nbytes // len(prefix.mask)


def to_arrays(prefixes: Sequence[Prefix]) -> Arrays:
    """Prefixes of T decisions of N environments. Rows with fewer tokens are padded with ones that do not exist.

    Shapes as in `Arrays`: [T, N, ...].
    """
    return _as_arrays(Prefix.stack(prefixes), len(prefixes))


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Join the environments of several workers: each part [T, N, ...] as in `Arrays`, the result [T, sum of N, ...]."""
    tokens = max(part["mask"].shape[2] for part in parts)
    padded = [_as_arrays(to_prefix(part).padded(tokens), len(part["mask"])) for part in parts]
    return {name: np.concatenate([part[name] for part in padded], axis=1) for name in parts[0]}


def to_prefix(arrays: Arrays) -> Prefix:
    """One prefix row per decision, in the order of the batch's flattened T and N. From [T, N, ...] to T * N rows."""
    flat = {name: torch.from_numpy(array).flatten(0, 1) for name, array in arrays.items()}
    keys, values = (flat[name].transpose(0, 1) for name in ("keys", "values"))
    return Prefix(keys, values, flat["mask"], flat["count"], full=bool(flat["mask"].all()))


def _as_arrays(prefix: Prefix, decisions: int) -> Arrays:
    rows = {
        "keys": prefix.keys.float().transpose(0, 1),
        "values": prefix.values.float().transpose(0, 1),
        "mask": prefix.mask,
        "count": prefix.count,
    }
    return {name: tensor.reshape(decisions, -1, *tensor.shape[1:]).numpy() for name, tensor in rows.items()}
