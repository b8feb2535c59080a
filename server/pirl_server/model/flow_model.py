"""What serving and training need of a policy network, whatever its family; `model.families` lists them.

A vision-language prefix is encoded once per observation; an action expert then predicts the flow's velocity from it.

Shape letters: B batch, C cameras, L text tokens, H horizon, D action dim, S state dim, W width of the expert,
K denoise steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from pirl_server.model.prefix import Prefix


class ImageInput(Protocol):
    """The images that a network reads."""

    @property
    def image_px(self) -> int:
        """Side of the square RGB image of each camera, in pixels."""


class Half(Protocol):
    """The vision-language or the action half of a network."""

    @property
    def width(self) -> int:
        """Numbers per output token."""


class FlowModelConfig(Protocol):
    """Sizes of a network: a frozen dataclass of plain numbers, which the model card stores as JSON."""

    @property
    def family(self) -> str:
        """Key of `model.families.FAMILIES`."""

    @property
    def vision(self) -> ImageInput | None:
        """None: the policy has no camera."""

    @property
    def vlm(self) -> Half:
        """The half that encodes the prefix; its width is that of `Prefix.pooled`."""

    @property
    def expert(self) -> Half:
        """The half that predicts the velocity; its width is W."""

    @property
    def depth(self) -> int:
        """Layers in a `Prefix`."""

    @property
    def kv_heads(self) -> int:
        """Key/value heads in a `Prefix`."""

    @property
    def head_dim(self) -> int:
        """Numbers per head in a `Prefix`."""

    @property
    def vocabulary(self) -> int:
        """Rows of the token embedding."""

    @property
    def max_tokens(self) -> int:
        """Longest prompt, in tokens."""

    @property
    def state_dim(self) -> int:
        """S."""

    @property
    def state_token(self) -> bool:
        """Whether the network reads the state vector; else the state can only be in the prompt."""

    @property
    def action_dim(self) -> int:
        """D, at least the contract's."""

    @property
    def horizon(self) -> int:
        """H."""


class ChunkDenoiser(Protocol):
    """Velocity of one batch of observations on a fixed schedule of denoise steps, one time for all rows."""

    def __call__(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity [B, H, D] without a graph."""

    def differentiable(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity [B, H, D] whose derivative by x can be taken."""

    def predict(self, x_BHD: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's outputs [B, H, W], without a graph."""


@dataclass(frozen=True)
class ChunkInputs:
    """A caller's batch, or the buffers that hold one."""

    images: Tensor | None
    """[B, C, 3, h, w] in [-1, 1]; None for a model without a camera"""
    image_mask: Tensor | None
    """[B, C]"""
    tokens: Tensor
    """[B, L]"""
    token_mask: Tensor
    """[B, L]"""
    state: Tensor
    """[B, S]"""
    noise: Tensor
    """[B, H, D]"""

    @classmethod
    def zeros(cls, config: FlowModelConfig, batch: int, cameras: int, length: int, device: torch.device) -> ChunkInputs:
        """Empty buffers."""
        zeros = partial(torch.zeros, device=device)
        images = image_mask = None
        if config.vision is not None:
            images = zeros(batch, cameras, 3, config.vision.image_px, config.vision.image_px)
            image_mask = zeros(batch, cameras, dtype=torch.bool)
        tokens, token_mask = zeros(batch, length, dtype=torch.long), zeros(batch, length, dtype=torch.bool)
        state, noise = zeros(batch, config.state_dim), zeros(batch, config.horizon, config.action_dim)
        return cls(images, image_mask, tokens, token_mask, state, noise)

    def rows(self, most: int) -> ChunkInputs:
        """The first so many rows."""
        parts: list[Any] = [getattr(self, entry.name) for entry in fields(ChunkInputs)]
        cut: list[Any] = [None if part is None else part[:most] for part in parts]
        return ChunkInputs(*cut)

    def fill(self, batch: ChunkInputs, length: int) -> None:
        """Copy a batch and the first `length` words of its prompts into the first rows.

        Rows left over keep their old content, which is not read.
        """
        self.token_mask.zero_()
        for entry in fields(ChunkInputs):
            target, source = getattr(self, entry.name), getattr(batch, entry.name)
            if target is not None:
                fitting = source[:, :length] if entry.name in ("tokens", "token_mask") else source
                target[: len(fitting), : fitting.shape[1]].copy_(fitting)


class ChunkRunner(Protocol):
    """Deterministic chunks of one network by compiled passes of fixed shape. Not thread-safe."""

    def warm_up(self) -> None:
        """Compile, and on a GPU record, every shape now, so that no request waits for it."""

    def chain(self, inputs: ChunkInputs) -> Tensor:
        """Latents of a deterministic denoising, noise first, chunk last: [rows, K+1, H, D].

        Raises ValueError for more rows, other cameras or a longer prompt than fit.
        """


class FlowModel(nn.Module, ABC):
    """A policy network. A base class rather than a structural type, because adapters, optimisers and state dicts take
    an `nn.Module`.

    Weights are loaded and saved as its state dict. Flow time: t = 1 noise, t = 0 action. Images are in [-1, 1], state
    and actions normalised by the caller.
    """

    VLM_PARTS: ClassVar[tuple[str, ...]]
    """how the names of the vision-language half's parameters start; the others belong to the action expert"""
    VLM_TOWER: ClassVar[str]
    """name of the module in the vision-language half that takes low-rank adapters"""
    EXPERT_TOWER: ClassVar[str]
    """name of the module in the expert that takes low-rank adapters; what is around it is small"""

    config: FlowModelConfig

    def vlm_parameters(self) -> Iterator[nn.Parameter]:
        """Vision and language: what reinforcement learning leaves frozen."""
        return (p for name, p in self.named_parameters() if name.startswith(self.VLM_PARTS))

    def expert_parameters(self) -> Iterator[nn.Parameter]:
        """The action expert and its projections: what reinforcement learning trains."""
        return (p for name, p in self.named_parameters() if not name.startswith(self.VLM_PARTS))

    @abstractmethod
    def encode_prefix(
        self,
        images: Tensor | None,
        image_mask: Tensor | None,
        tokens_BL: Tensor,
        token_mask_BL: Tensor,
        *,
        pooled: bool = False,
    ) -> Prefix:
        """Run vision and language: images [B, C, 3, h, w] with image_mask [B, C] bool, or None for no camera.

        `pooled` also computes the mean output, which a critic may read.
        """

    @abstractmethod
    def velocity_and_features(
        self, prefix: Prefix, state_BS: Tensor | None, x_BHD: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] of the noisy chunk x at time t [B], or [B, H] for one per action; expert outputs
        [B, H, W], which V_expert reads.
        """

    @abstractmethod
    def denoiser(
        self, prefix: Prefix, state_BS: Tensor | None, steps: int, given_BH: Tensor | None = None
    ) -> ChunkDenoiser:
        """Velocity for inference at the times 1, (K-1)/K, ..., 1/K; actions that are `given` have time 0 throughout."""

    def velocity(self, prefix: Prefix, state_BS: Tensor | None, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Velocity noise - action [B, H, D] of the noisy chunk x at time t [B], or [B, H]: one per action."""
        return self.velocity_and_features(prefix, state_BS, x_BHD, t_B)[0]
