"""Fits a success model: the head alone on features that were encoded once, or backbone and head on the images.

Shapes: N episodes, V cameras, C cells, W features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pirl_server.config.success import SuccessConfig
from pirl_server.training.progress import Progress
from pirl_server.training.success.backbone import Backbone
from pirl_server.training.success.final_frames import Frames
from pirl_server.training.success.head import HeadShape, Inputs, SuccessHead

REPORT_EVERY = 10
MIN_SHARE = 0.05
"""of the learning rate at the end of its cosine"""


@dataclass(frozen=True)
class Reading:
    """How a success model reads an episode: which cameras, whether the state, which sentences it knows."""

    cameras: tuple[str, ...]
    state: bool
    instructions: tuple[str, ...]

    def inputs(self, backbone: Backbone, frames: Frames) -> Inputs:
        """Encode frames with a backbone as it is. An unknown instruction is none of the known ones."""
        features = [backbone.features(frames.images[camera]) for camera in self.cameras]
        return self.beside(torch.stack(features, dim=1), frames)

    def beside(self, features_NVCW: Tensor, frames: Frames) -> Inputs:
        """Put the state and the instruction beside features of the same episodes."""
        state = torch.from_numpy(frames.state[:, : frames.state.shape[1] if self.state else 0])
        one_hot = torch.zeros(len(frames.ids), len(self.instructions))
        for row, sentence in enumerate(frames.instructions):
            if sentence in self.instructions:
                one_hot[row, self.instructions.index(sentence)] = 1.0
        return Inputs(features_NVCW, state, one_hot)


def new_head(inputs: Inputs, config: SuccessConfig, learnt: NDArray[np.int64], seed: int) -> SuccessHead:
    """Make a head with random weights that a seed decides, standardised by the episodes `learnt` [M]."""
    _, cameras, cells, width = inputs.features.shape
    shape = HeadShape(
        cameras, cells, width, inputs.state.shape[1], inputs.instruction.shape[1], config.channels, config.hidden
    )
    torch.manual_seed(seed)
    head = SuccessHead(shape, config.dropout)
    head.standardise(inputs.rows(torch.from_numpy(learnt)))
    return head


def fit_head(
    head: SuccessHead,
    inputs: Inputs,
    outcomes: NDArray[np.bool_],
    learnt: NDArray[np.int64],
    config: SuccessConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Fit the head on encoded episodes with `outcomes` [N]; `learnt` [M] says which of them are used."""
    groups = [{"params": list(head.parameters()), "lr": config.learning_rate}]
    _descend(groups, head, lambda rows: head(inputs.rows(rows)), outcomes, learnt, config, seed, progress)


def fit_all(
    backbone: Backbone,
    head: SuccessHead,
    frames: Frames,
    reading: Reading,
    outcomes: NDArray[np.bool_],
    learnt: NDArray[np.int64],
    config: SuccessConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Fit backbone and head on the images of the episodes `learnt` [M], of which all have `outcomes` [N]."""
    groups = [
        {"params": list(head.parameters()), "lr": config.learning_rate},
        {"params": list(backbone.parameters()), "lr": config.backbone_learning_rate},
    ]

    def logits(rows: Tensor) -> Tensor:
        some = rows_of(frames, rows.numpy())
        features = [backbone(backbone.prepare(some.images[camera])) for camera in reading.cameras]
        found: Tensor = head(reading.beside(torch.stack(features, dim=1), some))
        return found

    backbone.train()
    _descend(groups, head, logits, outcomes, learnt, config, seed, progress)
    backbone.eval()


def rows_of(frames: Frames, rows: NDArray[np.int64]) -> Frames:
    """Return the frames of the episodes at positions `rows` [M]."""
    return Frames(
        tuple(frames.ids[row] for row in rows),
        {name: pixels[rows] for name, pixels in frames.images.items()},
        frames.state[rows],
        tuple(frames.instructions[row] for row in rows),
    )


def joined(parts: Sequence[Frames]) -> Frames:
    """Put the frames of several parts behind each other."""
    return Frames(
        tuple(each for part in parts for each in part.ids),
        {name: np.concatenate([part.images[name] for part in parts]) for name in parts[0].images},
        np.concatenate([part.state for part in parts]),
        tuple(each for part in parts for each in part.instructions),
    )


def joined_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Put the inputs of several parts behind each other."""
    return Inputs(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("features", "state", "instruction"))
    )


def _descend(
    groups: list[dict[str, object]],
    head: SuccessHead,
    logits: Callable[[Tensor], Tensor],
    outcomes: NDArray[np.bool_],
    learnt: NDArray[np.int64],
    config: SuccessConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Take the optimiser steps, or as many as come before a request to stop; leaves the head ready to be used."""
    target, draw = torch.from_numpy(outcomes.astype(np.float32)), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step / config.steps))
    head.train()
    for step in range(1, config.steps + 1):
        if progress.cancelled:
            break
        rows = torch.from_numpy(draw.choice(learnt, min(config.batch_size, len(learnt)), replace=False))
        loss = nn.functional.binary_cross_entropy_with_logits(logits(rows), target[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        decay.step()
        if step % REPORT_EVERY == 0 or step == config.steps:
            progress.metrics(step=step, loss=float(loss.detach()))
            progress.progress(step, config.steps, f"loss {float(loss.detach()):.3f}")
    head.eval()


def _cosine(done: float) -> float:
    return MIN_SHARE + (1.0 - MIN_SHARE) * 0.5 * (1.0 + math.cos(math.pi * done))
