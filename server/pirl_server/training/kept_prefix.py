"""Prefixes that a rollout computed anyway, kept for the learner: with vision and language frozen they are the same.

Encoding a decision once more for its update costs as much as several epochs of the expert. Small models' prefixes
are shorter than the pipe is narrow; large ones' are not, and the learner encodes the pixels again.

Shape letters: T decisions, N environments, L layers, V key/value heads, P prefix tokens, E head dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pirl_server.model.prefix import Prefix

Arrays = Mapping[str, NDArray[np.generic]]
"""keys and values [T, N, L, V, P, E] float32, mask [T, N, P] bool, count [T, N] int64"""
TOKEN_AXIS = {"keys": 4, "values": 4, "mask": 2}
KEEP_BYTES = 1 << 18
"""of one decision's keys and values: more is not sent from a worker to the learner"""


def row_bytes(prefix: Prefix) -> int:
    """Bytes of one row's keys and values."""
    return 2 * prefix.keys.nbytes // len(prefix.mask)


def to_arrays(prefixes: Sequence[Prefix]) -> Arrays:
    """Prefixes of T decisions of N environments. Rows with fewer tokens are filled up with ones that do not exist."""
    steps = [
        {
            "keys": prefix.keys.transpose(0, 1).numpy()[None],
            "values": prefix.values.transpose(0, 1).numpy()[None],
            "mask": prefix.mask.numpy()[None],
            "count": prefix.count.numpy()[None],
        }
        for prefix in prefixes
    ]
    return joined(steps, axis=0)


def joined(parts: Sequence[Arrays], axis: int) -> Arrays:
    """Join along T (0) or N (1)."""
    tokens = max(part["mask"].shape[2] for part in parts)
    return {name: np.concatenate([_filled(part[name], name, tokens) for part in parts], axis) for name in parts[0]}


def to_prefix(arrays: Arrays) -> Prefix:
    """One prefix row per decision, in the order of the batch's flattened T and N."""
    flat = {name: torch.from_numpy(array).flatten(0, 1) for name, array in arrays.items()}
    keys, values = (flat[name].transpose(0, 1) for name in ("keys", "values"))
    return Prefix(keys, values, flat["mask"], flat["count"], full=bool(flat["mask"].all()))


def _filled(array: NDArray[np.generic], name: str, tokens: int) -> NDArray[np.generic]:
    if name not in TOKEN_AXIS or array.shape[TOKEN_AXIS[name]] == tokens:
        return array
    more = [(0, 0)] * array.ndim
    more[TOKEN_AXIS[name]] = (0, tokens - array.shape[TOKEN_AXIS[name]])
    return np.pad(array, more)
