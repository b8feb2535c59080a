"""Golden files: a model's sizes, weights and inputs with another implementation's outputs, in one safetensors file.

`weights/*` hold a state dict in openpi's, lerobot's or transformers' names, `in/*` one batch, `out/loss` the unreduced
loss at `in/time`, `out/sample_K` the Euler samples of K steps, the metadata the sizes.

Shape letters: B batch, C cameras, H horizon, D action dim.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pirl_server.interchange.parity.golden_sizes import golden_config, golden_family
from pirl_server.model import families
from pirl_server.model.flow_model import FlowModel, FlowModelConfig

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Golden:
    """A golden file, its model built and its inputs as the model takes them, all in one dtype."""

    model: FlowModel
    prefix: dict[str, Tensor | None]
    """arguments of `FlowModel.encode_prefix`"""
    state: Tensor | None
    noise: Tensor
    """[B, H, D]"""
    actions: Tensor
    """[B, H, D]"""
    time: Tensor
    """[B]"""
    loss: Tensor | None
    """[B, H, D]"""
    samples: dict[int, Tensor]
    """[B, H, D] by number of denoise steps"""


def load_golden(path: Path) -> Golden:
    """Read a golden file. Raises ValueError that says what is wrong with it."""
    try:
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"it can't be read: {error}") from error
    config = golden_config(metadata, len(_cameras(tensors)))
    dtype = torch.float32
    for value in tensors.values():
        dtype = torch.promote_types(dtype, value.dtype) if value.is_floating_point() else dtype
    floats = {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}
    golden = _assemble(config, floats)
    _check(golden)
    return golden


def _cameras(tensors: Tensors) -> list[Tensor]:
    """Images in order: in/image_0, in/image_1, ..."""
    found = [key for key in tensors if re.fullmatch(r"in/image_\d+", key)]
    names = [f"in/image_{i}" for i in range(len(found))]
    if set(found) != set(names):
        raise ValueError(f"images {sorted(found)} must be counted from 0 without a gap")
    return [tensors[name] for name in names]


def _assemble(config: FlowModelConfig, tensors: Tensors) -> Golden:
    cameras = _cameras(tensors)
    if len({image.shape for image in cameras}) > 1:
        raise ValueError(f"images of several shapes: {[tuple(image.shape) for image in cameras]}")
    try:
        prefix = {
            "images": torch.stack(cameras, dim=1) if cameras else None,
            "image_mask": tensors["in/image_mask"].bool() if cameras else None,
            "tokens_BL": tensors["in/tokens"].long(),
            "token_mask_BL": tensors["in/token_mask"].bool(),
        }
        fields = {name: tensors[f"in/{name}"] for name in ("noise", "actions", "time")}
        state = tensors["in/state"] if config.state_token else None
    except KeyError as error:
        raise ValueError(f"tensor {error} is missing") from error
    prefixed = "out/sample_"
    samples = {int(key.removeprefix(prefixed)): value for key, value in tensors.items() if key.startswith(prefixed)}
    return Golden(_model(config, tensors), prefix, state, **fields, loss=tensors.get("out/loss"), samples=samples)


def _check(golden: Golden) -> None:
    """Raise ValueError for a tensor of another shape than the sizes say, or a file with nothing to compare."""
    for name, (tensor, shape) in _shapes(golden).items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"'{name}' has shape {tuple(tensor.shape)}, the sizes require {shape}")
    tokens, vocabulary = golden.prefix["tokens_BL"], golden.model.config.vocabulary
    assert tokens is not None
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
        raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())}, the vocabulary has {vocabulary}")
    if golden.loss is None and not golden.samples:
        raise ValueError("it records no output: out/loss or out/sample_K is needed")


def _shapes(golden: Golden) -> dict[str, tuple[Tensor | None, tuple[int, ...]]]:
    config, batch = golden.model.config, len(golden.noise)
    images, image_mask, tokens, token_mask = golden.prefix.values()
    cameras = 0 if images is None else images.shape[1]
    px = 0 if config.vision is None else config.vision.image_px
    words = 0 if tokens is None else tokens.shape[-1]
    chunk = (batch, config.horizon, config.action_dim)
    chunks = {"noise": golden.noise, "actions": golden.actions, "loss": golden.loss}
    chunks |= {f"sample_{steps}": sample for steps, sample in golden.samples.items()}
    return {
        "image_0": (images, (batch, cameras, 3, px, px)),
        "image_mask": (image_mask, (batch, cameras)),
        "tokens": (tokens, (batch, words)),
        "token_mask": (token_mask, (batch, words)),
        "state": (golden.state, (batch, config.state_dim)),
        "time": (golden.time, (batch,)),
        **{name: (value, chunk) for name, value in chunks.items()},
    }


def _model(config: FlowModelConfig, tensors: Tensors) -> FlowModel:
    theirs = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    with torch.device("meta"):
        model = families.build(config)
    try:
        model.load_state_dict(golden_family(config.family).weights(theirs, config), assign=True)
    except RuntimeError as error:
        raise ValueError(f"weights do not fit the sizes: {str(error).splitlines()[1].strip()[:200]}") from error
    return model.eval()
