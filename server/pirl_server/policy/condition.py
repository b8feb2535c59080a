"""Conditioning on better actions (RECAP, arXiv 2511.14759): words in the prompt, and guidance by both branches.

A policy of this kind was trained to act as in decisions that were better than usual, or worse, by what its prompt says;
it is asked for the better ones. With guidance g its velocity is v(plain) + g (v(better) - v(plain)): at 1 that is
plain conditioning, one branch at the cost of one; above 1 it leaves what it usually does further behind.

Shape letters: N observations, B rows of a batch, H horizon, D action dim, W width of the expert, L prompt tokens,
S state, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pirl_server.model.flow_model import ChunkDenoiser
from pirl_server.model.prefix import Prefix
from pirl_server.policy.processor import Array, Images, Processor

BETTER, WORSE = " (good)", " (bad)"
"""what stands behind an instruction"""


def conditioned(instruction: str, better: bool) -> str:
    """The instruction as a prompt says it in training."""
    return instruction + (BETTER if better else WORSE)


@dataclass(frozen=True)
class ConditionedProcessor:
    """See `Processor`. Every instruction is asked for in its better version, unless it says which itself."""

    plain: Processor
    """the same without conditioning"""

    @property
    def state_in_prompt(self) -> bool:
        """Whether the prompt changes with the joint state."""
        return self.plain.state_in_prompt

    def features(self, state_NS: Array) -> Array:
        """[N, F]."""
        return self.plain.features(state_NS)

    def images(self, images: Images) -> tuple[Tensor, Tensor]:
        """Pixels [N, C, 3, h, w] of C cameras and which of them exist [N, C]."""
        return self.plain.images(images)

    def prompts(self, instructions: Sequence[str], state_NS: Array) -> tuple[Tensor, Tensor]:
        """Ids and validity [N, L]."""
        said = [each if each.endswith((BETTER, WORSE)) else conditioned(each, better=True) for each in instructions]
        return self.plain.prompts(said, state_NS)

    def to_actions(self, x_NHA: Tensor, state_NS: Array) -> Array:
        """[N, H, D]."""
        return self.plain.to_actions(x_NHA, state_NS)

    def to_model(self, actions_NHD: Array, state_NS: Array) -> Tensor:
        """[N, H, A], A the model's action dim."""
        return self.plain.to_model(actions_NHD, state_NS)


def without_condition(processor: Processor) -> Processor:
    """The processor whose prompts are the bare instructions."""
    return processor.plain if isinstance(processor, ConditionedProcessor) else processor


def paired(better_NL: Tensor, plain_NL: Tensor) -> Tensor:
    """Rows of both branches beside each other [2 N, L]: better, plain, better, plain."""
    return torch.stack([better_NL, plain_NL], dim=1).flatten(0, 1)


def pairs(prefix: Prefix, batch: int) -> Prefix:
    """Paired prefix rows for a batch [2 N]: one pair stands for every row, as a single row does elsewhere."""
    rows = len(prefix.mask)
    assert rows in (2, 2 * batch), f"{rows} prefix rows are no pairs of {batch} observations"
    return prefix if rows == 2 * batch else prefix.select(torch.arange(2, device=prefix.mask.device).repeat(batch))


@dataclass(frozen=True)
class GuidedDenoiser:
    """`ChunkDenoiser` of both branches as one pass of twice the rows."""

    both: ChunkDenoiser
    """over paired rows"""
    guidance: float

    def __call__(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity [B, H, D] without a graph."""
        return self._guided(self.both(_twice(x_BHD), _twice(t_B)))

    def differentiable(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity [B, H, D] whose derivative by x can be taken."""
        return self._guided(self.both.differentiable(_twice(x_BHD), _twice(t_B)))

    def predict(self, x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the better branch's outputs [B, H, W], without a graph."""
        velocity, features = self.both.predict(_twice(x_BHD), _twice(t_B))
        return self._guided(velocity), features[0::2]

    def _guided(self, velocity: Tensor) -> Tensor:
        better, plain = velocity[0::2], velocity[1::2]
        return plain + self.guidance * (better - plain)


def _twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=0)
