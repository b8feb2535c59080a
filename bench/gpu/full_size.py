"""A model of any size with random weights on a device, a batch for it, and the ways to run one chunk there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pirl_server.model.flow_model import ChunkInputs
from pirl_server.model.pi0.compiled import TOKEN_BUCKETS, CompiledPi0
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.precision import to_bfloat16

Chunk = Callable[[], Tensor]


def random_model(config: Pi0Config, device: torch.device, *, narrow: bool) -> Pi0:
    """Built without memory, then filled where it will run: no copy on the host, no float32 copy on the device."""
    with torch.device("meta"):
        model = Pi0(config)
    if narrow:
        to_bfloat16(model)
    model = model.to_empty(device=device).eval().requires_grad_(False)
    draw = torch.Generator(device).manual_seed(0)
    for weight in model.parameters():
        weight.normal_(std=0.02, generator=draw)
    return model


def draw_inputs(model: Pi0, *, batch: int, cameras: int, text: int) -> ChunkInputs:
    """Random observations on the model's device, all cameras present: the most work."""
    config, device = model.config, model.action_in_proj.weight.device
    assert config.vision is not None
    draw, px = torch.Generator(device).manual_seed(1), config.vision.image_px
    images = torch.rand(batch, cameras, 3, px, px, generator=draw, device=device)
    return ChunkInputs(
        images=images * 2.0 - 1.0,
        image_mask=torch.ones(batch, cameras, dtype=torch.bool, device=device),
        tokens=torch.randint(1, config.vocabulary, (batch, text), generator=draw, device=device),
        token_mask=torch.ones(batch, text, dtype=torch.bool, device=device),
        state=torch.randn(batch, config.state_dim, generator=draw, device=device),
        noise=torch.randn(batch, config.horizon, config.action_dim, generator=draw, device=device),
    )


def eager(model: Pi0, inputs: ChunkInputs, steps: int) -> Chunk:
    """As the service runs without compilation."""

    @torch.inference_mode()
    def run() -> Tensor:
        prefix = model.encode_prefix(inputs.images, inputs.image_mask, inputs.tokens, inputs.token_mask)
        return model.denoiser(prefix, inputs.state, steps).sample(inputs.noise)

    return run


def fixed_shapes(model: Pi0, inputs: ChunkInputs, steps: int, backend: str) -> Chunk:
    """`CompiledPi0` with one bucket, the prompt's; on a GPU its kernels are replayed as CUDA graphs."""
    batch, cameras, text = len(inputs.noise), inputs.image_mask.shape[1], inputs.tokens.shape[1]  # type: ignore[union-attr]
    bucket = next(length for length in TOKEN_BUCKETS if length >= text)
    runner = CompiledPi0(model, batch=batch, cameras=cameras, steps=steps, buckets=[bucket], backend=backend)
    runner.warm_up()
    return lambda: runner.chain(inputs)[:, -1]
