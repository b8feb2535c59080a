"""Text and rectangles on an image, and the cameras of one call side by side. RGB, uint8."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pirl_server.episodes.schema import Episode

BACKGROUND, TEXT, FAINT = (250, 250, 248), (30, 30, 30), (205, 205, 200)
GAP = 4
"""pixels between cameras"""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and knows more than Latin letters."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def blank(width: int, height: int) -> Image.Image:
    """Return an empty image [height, width, 3]."""
    return Image.new("RGB", (width, height), BACKGROUND)


def pen(image: Image.Image) -> ImageDraw.ImageDraw:
    """Return what draws on an image [height, width, 3]."""
    return ImageDraw.Draw(image)


def fitted(text: str, size: int, width: int) -> str:
    """Return a text, with its end left out where it is wider than `width` pixels."""
    shown = " ".join(text.split())
    if font(size).getlength(shown) <= width:
        return shown
    while shown and font(size).getlength(shown + "...") > width:
        shown = shown[:-1]
    return shown + "..."


def cameras(episode: Episode, call: int, height: int) -> Image.Image:
    """Return the images of one call side by side in this height, [height, width, 3]; without cameras a blank."""
    names = [camera.name for camera in episode.info.contract.cameras]
    images = [scaled(np.asarray(episode.calls.images[name][call]), height) for name in names]
    width = sum(image.width for image in images) + GAP * max(0, len(images) - 1)
    whole = blank(max(width, 1), height)
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width + GAP
    return whole


def scaled(pixels: NDArray[np.uint8], height: int) -> Image.Image:
    """Return an image [h, w, 3] in this height, [height, width, 3]; small ones are enlarged without blur."""
    image = Image.fromarray(pixels)
    width = max(1, round(image.width * height / image.height))
    how = Image.Resampling.NEAREST if height >= image.height else Image.Resampling.LANCZOS
    return image.resize((width, height), how)
