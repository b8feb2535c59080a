"""The image model behind a success model: any that transformers reads, as features of a grid of cells.

N images, G cells a side, W features of a cell. transformers is imported here and nowhere else, and only when a backbone
is opened: it takes seconds. No code of a model's folder is run, and weights are read from safetensors alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pirl_server.policy.checkpoint import file_chunks

CONFIG = "config.json"
_NOT_READ = "pooler"
"""part of a name: weights that the features don't depend on, and checkpoints often lack"""


@dataclass(frozen=True)
class Source:
    """Where a backbone is from."""

    name: str
    """as the job names it"""
    path: str
    """folder on this machine, or the name on the hub"""
    revision: str = ""
    """commit on the hub; empty: a folder"""


class Backbone(nn.Module):
    """Images to features of a grid of cells.

    Colours are scaled by the model's own preprocessor. It does not crop: the whole image is resized to a square, since
    what decides may lie at its edge.
    """

    def __init__(self, model: nn.Module, processor: Any, grid: int) -> None:
        super().__init__()
        self.model, self._processor, self._grid = model, processor, grid
        config: Any = model.config
        self.side = int(getattr(config, "image_size", 0) or _side(processor))
        """pixels a side that the model was trained with"""

    def prepare(self, images: NDArray[np.uint8]) -> Tensor:
        """Turn images [N, height, width, 3] into the model's input [N, 3, side, side]."""
        size = self.side, self.side
        resized = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in images]
        options = {"do_resize": False, "do_center_crop": False, "input_data_format": "channels_last"}
        pixels: Tensor = self._processor(images=resized, return_tensors="pt", **options)["pixel_values"]
        return pixels

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features [N, G * G, W] of images [N, 3, side, side]; the grid is no finer than the model's.

        Raises ValueError for a model that gives no features by place.
        """
        found = self.model(pixel_values=pixels).last_hidden_state
        places = _places(found, pixels, self.model)
        grid = min(self._grid, *places.shape[-2:])
        cells: Tensor = nn.functional.adaptive_avg_pool2d(places, grid)
        return cells.flatten(2).transpose(1, 2)

    @torch.inference_mode()
    def features(self, images: NDArray[np.uint8]) -> Tensor:
        """Return the features [N, G * G, W] of images [N, height, width, 3]."""
        found: Tensor = self(self.prepare(images))
        return found.clone()

    def save(self, folder: Path) -> None:
        """Write it as transformers reads it: config, preprocessor, safetensors."""
        self.model.save_pretrained(folder)  # type: ignore[operator]  # of transformers' PreTrainedModel
        self._processor.save_pretrained(folder)


def open_backbone(source: Source, grid: int) -> tuple[Backbone, Source]:
    """Load a backbone, from the hub where it is no folder, and say which commit that was.

    Of a model of images and text only the part for images is taken. Raises ValueError for what is no image model, has
    no safetensors, or lacks weights.
    """
    import transformers

    library: Any = transformers  # its types are incomplete
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    try:
        config = library.AutoConfig.from_pretrained(source.path)
        revision = str(getattr(config, "_commit_hash", None) or "")
        config = getattr(config, "vision_config", config)
        model, loading = library.AutoModel.from_pretrained(
            source.path, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        processor = library.AutoImageProcessor.from_pretrained(source.path)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"'backbone' {source.name!r} can't be read as an image model: {why}") from error
    lacking = sorted(name for name in loading["missing_keys"] if _NOT_READ not in name)
    if lacking:
        raise ValueError(f"'backbone' {source.name!r} lacks {len(lacking)} weights, such as '{lacking[0]}'")
    return Backbone(model.eval(), processor, grid), Source(source.name, source.path, revision)


def content_hash(folder: Path) -> str:
    """Return the SHA-256 over the files of a saved backbone, names included; twelve hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        for chunk in file_chunks(path):
            digest.update(chunk)
    return digest.hexdigest()[:12]


def _side(processor: Any) -> int:
    """Pixels a side that a preprocessor makes, for models that take any size."""
    size = dict(getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {})
    return int(size.get("height") or size.get("shortest_edge") or 224)


def _places(found: Tensor, pixels: Tensor, model: nn.Module) -> Tensor:
    """Features by place [N, W, rows, columns]: patches without the tokens before them, or a convolution's map."""
    if found.ndim == 4:
        return found
    patch = int(getattr(model.config, "patch_size", 0) or 0)
    rows, columns = (pixels.shape[-2] // patch, pixels.shape[-1] // patch) if patch else (0, 0)
    before = found.shape[1] - rows * columns
    if not patch or before < 0:
        raise ValueError(f"'{type(model).__name__}' gives no features by place: use a ViT, SigLIP, DINOv2 or ResNet")
    return found[:, before:].transpose(1, 2).reshape(len(found), -1, rows, columns)
