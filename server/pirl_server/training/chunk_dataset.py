"""Training samples of flow matching: an observation and the H actions that followed.

Shape letters: M windows, P distinct prompts, L prompt tokens, H horizon, D the contract's actions, A the model's,
F features, S state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array, Images


@dataclass(frozen=True)
class ChunkDataset:
    """In model space, but for the images: as uint8 they take a quarter of the memory, and are scaled batch by batch."""

    features: Tensor
    """[M, F]"""
    prompt: Tensor
    """[M] int64: row of `tokens`"""
    tokens: Tensor
    """[P, L] int64; each sentence once, or a row per window where the prompt holds the state"""
    token_mask: Tensor
    """[P, L] bool"""
    actions: Tensor
    """[M, H, A], zero beyond the contract's D"""
    weight: Tensor
    """[M] of the loss; all ones for plain imitation"""
    images: Images | None = None
    """uint8 [M, height, width, 3] by camera, for policies that see"""
    aux_target: Tensor | None = None
    """[M, F] targets of the auxiliary loss, from the simulator's state
    (`training.supervised.auxiliary_state_loss`)"""

    def __len__(self) -> int:
        return len(self.weight)


def make_windows(
    policy: FlowPolicy, state_MS: Array, sentences: Sequence[str], actions_MHD: Array, images: Images | None
) -> ChunkDataset:
    """Windows of equal weight from the contract's units.

    Raises ValueError for a sentence that the model can't read. Images are [M, height, width, 3] by camera.
    """
    if policy.processor.state_in_prompt:
        tokens, mask = policy.processor.prompts(sentences, state_MS)
        prompt = torch.arange(len(sentences))
    else:
        distinct = tuple(dict.fromkeys(sentences))
        tokens, mask = policy.prompt_tokens(distinct)
        prompt = torch.tensor([distinct.index(sentence) for sentence in sentences])
    return ChunkDataset(
        features=torch.from_numpy(policy.features(state_MS)),
        prompt=prompt,
        tokens=tokens,
        token_mask=mask,
        actions=policy.to_model(actions_MHD, state_MS),
        weight=torch.ones(len(sentences)),
        images=images,
    )


def stack_images(policy: FlowPolicy, parts: Sequence[Images]) -> Images | None:
    """Join the images of several episodes by camera; None for a policy that sees none.

    Each is [rows, height, width, 3].
    """
    if policy.card.model.vision is None:
        return None
    names = [camera.name for camera in policy.contract.cameras]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
