"""A full-size model with random weights on a device, and the ways to run one chunk on it.

Shape letters: B batch, C cameras, L text tokens, H horizon, D action dim, S state dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pirl_server.model.config import Pi0Config
from pirl_server.model.pi0 import Pi0

TOWERS = ("vision", "projector", "embed_tokens", "language", "expert")
"""the parts that compute in the narrow type; projections of state, action and time stay float32, as the latents do"""
Chunk = Callable[[], Tensor]


def random_model(config: Pi0Config, device: torch.device, dtype: torch.dtype) -> Pi0:
    """Built without memory, then filled where it will run: no copy on the host, no float32 copy on the device."""
    with torch.device("meta"):
        model = Pi0(config)
    for part in TOWERS:
        model.get_submodule(part).to(dtype)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    draw = torch.Generator(device).manual_seed(0)
    for weight in model.parameters():
        weight.normal_(std=0.02, generator=draw)
    return model


@dataclass(frozen=True)
class Scene:
    """One batch, all cameras present and no padding: the most work."""

    images: Tensor
    """[B, C, 3, h, w]"""
    image_mask: Tensor
    tokens: Tensor
    """[B, L]"""
    token_mask: Tensor
    state: Tensor
    """[B, S]"""
    noise: Tensor
    """[B, H, D]"""

    @classmethod
    def draw(cls, model: Pi0, *, batch: int, cameras: int, text: int) -> Scene:
        """Random observations on the model's device."""
        config, like = model.config, model.action_in_proj.weight
        assert config.vision is not None
        make = torch.Generator(like.device).manual_seed(1)
        px, device = config.vision.image_px, like.device
        images = torch.rand(batch, cameras, 3, px, px, generator=make, device=device) * 2.0 - 1.0
        return cls(
            images.to(model.embed_tokens.weight.dtype),
            torch.ones(batch, cameras, dtype=torch.bool, device=device),
            torch.randint(1, config.vocabulary, (batch, text), generator=make, device=device),
            torch.ones(batch, text, dtype=torch.bool, device=device),
            torch.randn(batch, config.state_dim, generator=make, device=device),
            torch.randn(batch, config.horizon, config.action_dim, generator=make, device=device),
        )


def eager(model: Pi0, scene: Scene, steps: int) -> Chunk:
    """As the service runs without compilation."""

    @torch.inference_mode()
    def run() -> Tensor:
        prefix = model.encode_prefix(scene.images, scene.image_mask, scene.tokens, scene.token_mask)
        return model.denoiser(prefix, scene.state, steps).sample(scene.noise)

    return run


def graph(model: Pi0, scene: Scene, steps: int) -> Chunk:
    """The same kernels, recorded once into one CUDA graph: what remains when launches cost nothing."""

    def work() -> Tensor:
        prefix = model.encode_prefix(scene.images, scene.image_mask, scene.tokens, scene.token_mask, static=True)
        return model.denoiser(prefix, scene.state, steps).sample(scene.noise)

    with torch.inference_mode():
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                work()
        torch.cuda.current_stream().wait_stream(aside)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded):
            chunk = work()

    def run() -> Tensor:
        recorded.replay()
        return chunk

    return run
