"""Camera images to the model's square: aspect kept, black bars beside them, scaled to [-1, 1].

Two ways to shrink, because a checkpoint has learned from one of them: PIL's bilinear filter over uint8, which
antialiases (openpi's clients and transforms), and torch's bilinear interpolation of floats, which does not (lerobot).
Two places for the bars: on both sides of a centred image, or left of it and above it (lerobot's SmolVLA).

Shape letters: N images, h w pixels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

Pixels = NDArray[np.uint8]
Method = Literal["pil", "torch", "torch_left_top"]


def letterbox(images_NhwC: Pixels, px: int, method: Method, bars: float) -> Tensor:
    """uint8 RGB [N, h, w, 3] -> float32 [N, 3, px, px] in [-1, 1]; `bars` is the value around the image.

    Images of the right size are scaled only.
    """
    if images_NhwC.shape[1:3] == (px, px):
        return scaled(images_NhwC)
    height, width = fitted(images_NhwC.shape[1], images_NhwC.shape[2], px)
    top, left = px - height, px - width
    if method != "torch_left_top":
        top, left = top // 2, left // 2
    shrink = _by_pil if method == "pil" else _by_torch
    # a card may say -1: an integer fill would make an integer image
    out = torch.full((len(images_NhwC), 3, px, px), float(bars))
    out[:, :, top : top + height, left : left + width] = shrink(images_NhwC, height, width)
    return out


def scaled(images_NhwC: Pixels) -> Tensor:
    """0..255 -> [-1, 1], channels first, float32. Returns [N, 3, h, w]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images_NhwC)).permute(0, 3, 1, 2)
    return pixels.float() / 255.0 * 2.0 - 1.0


def fitted(height: int, width: int, px: int) -> tuple[int, int]:
    """Size of the image inside the square: the longer side fills it, fractions are cut off.

    Divides by the ratio instead of multiplying by its inverse: both stacks do, and round a pixel away where that does.
    """
    ratio = max(height / px, width / px)
    return max(1, int(height / ratio)), max(1, int(width / ratio))


def _by_pil(images_NhwC: Pixels, height: int, width: int) -> Tensor:
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images_NhwC]
    return scaled(np.stack([np.asarray(image) for image in resized]))


def _by_torch(images_NhwC: Pixels, height: int, width: int) -> Tensor:
    unit = torch.from_numpy(np.ascontiguousarray(images_NhwC)).permute(0, 3, 1, 2).float() / 255.0
    resized = interpolate(unit, size=(height, width), mode="bilinear", align_corners=False)
    return resized.clamp(0.0, 1.0) * 2.0 - 1.0
