"""A rollout worker's batch for the learner: arrays over decisions, as safetensors bytes (no pickle).

T decisions of each of N environments, in time order; F features, K stored latents, H horizon, D action dim, S state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from pirl_server.training import prefix_cache

Float = NDArray[np.float32]
Images = Mapping[str, NDArray[np.uint8]]
IMAGE, PREFIX = "images/", "prefix/"


@dataclass(frozen=True)
class DecisionBatch:
    """Decisions in the order they were made; environments continue where the last batch ended."""

    features_TNF: Float
    """F = what the critic reads + elapsed share of the episode; the policy reads the same, unless there is a state.
    [T, N, K, F] for what a value head reads."""
    sentence_TN: NDArray[np.int64]
    """which of the task's instructions the episode had"""
    chain_TNKHD: Float
    """latents before and after the one stochastic step, or of the whole chain where each is"""
    index_TN: NDArray[np.int64]
    """which of the K denoise steps was stochastic; -1: each"""
    log_prob_TN: Float
    """density of those steps, summed over the first execute_horizon actions, played or not; [T, N, K] where each step
    has a ratio of its own"""
    reward_TN: Float
    """summed over the steps of the chunk"""
    done_TN: NDArray[np.bool_]
    """the episode ended in this decision (success, or the time limit, which elapsed time makes a true end)"""
    valid_TN: NDArray[np.bool_]
    """False after the end of an episode that nothing followed"""
    policy_version_TN: NDArray[np.int64]
    """number of the weights that made the decision, as the learner counts them"""
    last_features_NF: Float
    """features after the last decision, for the bootstrap"""
    episode_success: NDArray[np.bool_]
    """of the episodes that ended in this batch; of groups, in the order of the environments"""
    episode_steps: NDArray[np.int64]
    episode_return: Float
    """reward of those episodes"""
    env_steps: NDArray[np.int64]
    """[1] control steps taken"""
    state_TNS: Float | None = None
    """raw states, where features or prompts of the policy must be made from them again; else None"""
    images: Images | None = None
    """uint8 [T, N, height, width, 3] by camera: the very pixels that the policy saw; None without a camera"""
    prefix: prefix_cache.Arrays | None = None
    """what the rollout's policy made of prompt and pixels, where it is small enough to travel; then no images"""

    def to_bytes(self) -> bytes:
        """Encode for a pipe."""
        columns = {name: getattr(self, name) for name in _columns()}
        columns |= {IMAGE + name: pixels for name, pixels in (self.images or {}).items()}
        columns |= {PREFIX + name: array for name, array in (self.prefix or {}).items()}
        return save({name: np.ascontiguousarray(array) for name, array in columns.items() if array is not None})

    @classmethod
    def from_bytes(cls, data: bytes) -> DecisionBatch:
        """Decode `to_bytes`."""
        columns: dict[str, Any] = load(data)
        groups = [
            {name.removeprefix(start): columns.pop(name) for name in list(columns) if name.startswith(start)}
            for start in (IMAGE, PREFIX)
        ]
        return cls(**columns, images=groups[0] or None, prefix=groups[1] or None)

    @classmethod
    def merge(cls, parts: Sequence[DecisionBatch]) -> DecisionBatch:
        """Join the batches of several workers side by side."""

        def joined(name: str) -> NDArray[np.generic] | None:
            arrays = [getattr(part, name) for part in parts]
            if arrays[0] is None:
                return None
            if name == "env_steps":
                return np.asarray(np.sum(arrays, axis=0))
            return np.concatenate(arrays, axis=1 if "_TN" in name else 0)

        columns: dict[str, Any] = {name: joined(name) for name in _columns()}
        seen = [part.images for part in parts if part.images is not None]
        images = {name: np.concatenate([each[name] for each in seen], axis=1) for name in (seen[0] if seen else ())}
        kept = [part.prefix for part in parts if part.prefix is not None]
        return cls(**columns, images=images or None, prefix=prefix_cache.joined(kept) if kept else None)


def _columns() -> list[str]:
    """Fields that are one array."""
    return [field.name for field in fields(DecisionBatch) if field.name not in ("images", "prefix")]
