"""Supervised flow matching (paper Eq. 2): the loss of pi0's own training, on windows of recorded actions.

Shape letters: M windows, B minibatch, H horizon, D action dim, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pirl_server.algorithm.awr import weighted_flow_matching_loss
from pirl_server.algorithm.flow import draw_time, flow_matching_loss, interpolate
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.progress import Progress

REPORT_EVERY = 25


@dataclass(frozen=True)
class Windows:
    """Training samples: what was observed, and the H actions that followed."""

    features: Tensor
    """[M, F]"""
    sentence: Tensor
    """[M] index into the policy's instructions"""
    actions: Tensor
    """[M, H, D] model space"""
    weight: Tensor
    """[M] of the loss; all ones for plain imitation"""
    images: Tensor | None = None
    """[M, C, 3, h, w] in [-1, 1], for presets with a camera"""


def loss(policy: FlowPolicy, prefix: Prefix, windows: Windows, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted mean error of the velocity on the given rows at random times."""
    action, weight = windows.actions[rows], windows.weight[rows]
    noise = torch.randn(action.shape, generator=generator)
    t = draw_time(len(rows), generator)
    x = interpolate(action, noise, t)
    velocity = policy.model.velocity(prefix, windows.features[rows], x, t)
    return weighted_flow_matching_loss(flow_matching_loss(velocity, action, noise), weight)


def fit(
    policy: FlowPolicy,
    windows: Windows,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    progress: Progress,
    seed: int,
    train_vlm: bool,
) -> float:
    """Train in place, with a cosine decay of the learning rate; return the mean loss of the last steps.

    `train_vlm` trains vision and language too; without it their outputs are computed once.
    """
    generator = torch.Generator().manual_seed(seed)
    frozen = None if train_vlm or windows.images is not None else _sentences(policy).detach()
    parameters = list(policy.model.parameters() if train_vlm else policy.model.expert_parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate * 0.05)
    recent: list[float] = []
    for step in range(1, steps + 1):
        rows = torch.randint(len(windows.features), (batch_size,), generator=generator)
        prefix = _prefix(policy, windows, rows) if frozen is None else frozen.select(windows.sentence[rows])
        value = loss(policy, prefix, windows, rows, generator)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        recent = [*recent, float(value.detach())][-REPORT_EVERY:]
        if step % REPORT_EVERY == 0 or step == steps:
            progress.metrics(step=step, loss=sum(recent) / len(recent))
            progress.progress(step, steps, f"gradient steps, loss {sum(recent) / len(recent):.4f}")
            if progress.cancelled:
                break
    return sum(recent) / len(recent)


def _sentences(policy: FlowPolicy) -> Prefix:
    """One prefix row per instruction of the card, with its graph."""
    ids, mask = policy.prompt_tokens(policy.instructions)
    return policy.model.encode_prefix(None, None, ids, mask)


def _prefix(policy: FlowPolicy, windows: Windows, rows: Tensor) -> Prefix:
    sentence = windows.sentence[rows]
    if windows.images is None:
        return _sentences(policy).select(sentence)
    images = windows.images[rows]
    ids, mask = policy.prompt_tokens(policy.instructions)
    image_mask = torch.ones(images.shape[:2], dtype=torch.bool)
    return policy.model.encode_prefix(images, image_mask, ids[sentence], mask[sentence])
