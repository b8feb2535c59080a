"""Training samples of flow matching: an observation and the H actions that followed.

Shape letters: M windows, P distinct prompts, L prompt tokens, H horizon, D the contract's actions, A the model's,
F features, S state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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
    valid: Tensor
    """[M, H] bool: which actions may be learnt; at least one of each window. The others only fill the chunk"""
    weight: Tensor
    """[M] of the loss; all ones for plain imitation"""
    share: Tensor | None = None
    """[M] how often each is drawn, adding up to 1; None: all alike"""
    images: Images | None = None
    """uint8 [M, height, width, 3] by camera, for policies that see"""
    aux_target: Tensor | None = None
    """[M, F] targets of the auxiliary loss, from the simulator's state
    (`training.supervised.auxiliary_state_loss`)"""

    def __len__(self) -> int:
        return len(self.weight)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Row numbers [count] int64 of a minibatch, with replacement."""
        if self.share is None:
            return torch.randint(len(self), (count,), generator=generator)
        return torch.multinomial(self.share, count, replacement=True, generator=generator)


def make_windows(
    policy: FlowPolicy,
    state_MS: Array,
    sentences: Sequence[str],
    actions_MHD: Array,
    images: Images | None,
    valid_MH: NDArray[np.bool_] | None = None,
) -> ChunkDataset:
    """Windows of equal weight from the contract's units; without `valid_MH` every action may be learnt.

    Raises ValueError for a sentence that the model can't read. Images are [M, height, width, 3] by camera.
    """
    if policy.processor.state_in_prompt:
        tokens, mask = policy.processor.prompts(sentences, state_MS)
        prompt = torch.arange(len(sentences))
    else:
        distinct = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
        tokens, mask = policy.prompt_tokens(tuple(distinct))
        prompt = torch.tensor([distinct[sentence] for sentence in sentences])
    return ChunkDataset(
        features=torch.from_numpy(policy.features(state_MS)),
        prompt=prompt,
        tokens=tokens,
        token_mask=mask,
        actions=policy.to_model(actions_MHD, state_MS),
        valid=torch.from_numpy(np.ones(actions_MHD.shape[:2], np.bool_) if valid_MH is None else valid_MH),
        weight=torch.ones(len(sentences)),
        images=images,
    )


ROWS_AT_ONCE = 64
"""images that are copied at a time"""


class ImageRows:
    """Images of many episodes by camera, kept in unnamed files of the temporary folder (`TMPDIR`), not in memory.

    None for a policy that sees none.
    """

    def __init__(self, policy: FlowPolicy) -> None:
        sees = policy.card.model.vision is not None
        cameras = policy.contract.cameras if sees else ()
        self._shapes = {camera.name: (camera.height, camera.width, 3) for camera in cameras}
        self._files = {name: tempfile.TemporaryFile() for name in self._shapes}  # noqa: SIM115
        self._rows = 0

    def add(self, images: Images, rows: NDArray[np.int64]) -> None:
        """Append these rows of one episode's images, a few at a time. Each is [calls, height, width, 3]."""
        for name, file in self._files.items():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                file.write(np.ascontiguousarray(images[name][rows[start : start + ROWS_AT_ONCE]]).data)
        self._rows += len(rows)

    def finish(self) -> Images | None:
        """Return what was added, [rows, height, width, 3] by camera: read from the files where it is used."""
        if not self._files:
            return None
        images = {}
        for name, file in self._files.items():
            file.flush()
            shape = (self._rows, *self._shapes[name])
            images[name] = np.asarray(np.memmap(file, np.uint8, "r", shape=shape))
            file.close()
        return images
