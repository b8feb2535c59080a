"""Image augmentation as in openpi's training: crop, rotation, colours. For supervised training only.

Reinforcement learning must not see them: the density of a decision is that of the very pixels it was made from.
Shape letters: B batch, C cameras, h height, w width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

CROP = 0.05
"""share of each side that the crop leaves out, at a random place; the rest is stretched to full size"""
TURN = math.radians(5.0)
BRIGHTNESS, CONTRAST, SATURATION = 0.3, 0.4, 0.5
"""half ranges of the factors around 1"""
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601"""


def is_wrist(camera: str) -> bool:
    """Whether a camera moves with the tool: its geometry is then information, and is kept."""
    return "wrist" in camera


def augment(images: Tensor, cameras: Sequence[str], strength: float, generator: torch.Generator) -> Tensor:
    """New images [B, C, 3, h, w] in [-1, 1] from images in that range; each image has a draw of its own.

    `strength` scales every range: 1 is openpi's, 0 changes nothing. `cameras` names the C axis.
    """
    assert images.shape[1] == len(cameras)
    if strength == 0.0:
        return images
    turned = torch.tensor([not is_wrist(name) for name in cameras])
    draw = 2.0 * torch.rand(6, *images.shape[:2], generator=generator) - 1.0
    draw[:3] *= turned
    scale = torch.where(turned, 1.0 - CROP * strength, 1.0).expand(images.shape[:2])
    flat = images.flatten(0, 1)
    theta = view(draw[:3], scale, strength, images.shape[-1] / images.shape[-2])
    grid = affine_grid(theta.flatten(0, 1).to(flat), list(flat.shape), align_corners=False)
    # What a turn brings in from outside is black, as the bars of a padded image are: 0 once the range starts there.
    moved = grid_sample(flat + 1.0, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1.0
    still = ~turned.to(flat.device).expand(images.shape[:2])
    seen = torch.where(still[..., None, None, None], images, moved.view_as(images))
    return colours(seen, draw[3:].to(flat), strength)


def view(draw: Tensor, scale: Tensor, strength: float, aspect: float) -> Tensor:
    """Affine maps [..., 2, 3] from output to input coordinates in [-1, 1].

    `draw` [3, ...] in [-1, 1]: where the crop of share `scale` [...] lies (x, y), and how far the image is turned.
    A crop never reaches beyond the image; a turn does. `aspect` is width / height.
    """
    x, y, angle = draw[0] * (1.0 - scale), draw[1] * (1.0 - scale), draw[2] * TURN * strength
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cos, -sin / aspect, x], dim=-1), torch.stack([sin * aspect, cos, y], dim=-1)]
    return torch.stack(rows, dim=-2)


def colours(images: Tensor, draw: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation in that order on [0, 1], by factors that `draw` [3, B, C] in [-1, 1] names.

    Contrast turns around each image's mean grey, saturation around each pixel's grey. Clipped to the range at the end.
    """
    ranges = torch.tensor([BRIGHTNESS, CONTRAST, SATURATION], device=images.device, dtype=images.dtype) * strength
    factors = (1.0 + draw * ranges[:, None, None])[..., None, None, None]
    picture = (images / 2.0 + 0.5) * factors[0]
    mean = _grey(picture).mean(dim=(-2, -1), keepdim=True)
    picture = mean + (picture - mean) * factors[1]
    grey = _grey(picture)
    picture = grey + (picture - grey) * factors[2]
    return picture.clamp(0.0, 1.0) * 2.0 - 1.0


def _grey(picture: Tensor) -> Tensor:
    """[..., 3, h, w] -> [..., 1, h, w]."""
    weights = torch.tensor(_LUMA, device=picture.device, dtype=picture.dtype)
    return (picture * weights[:, None, None]).sum(dim=-3, keepdim=True)
