"""Statistics of a LeRobotDataset: of each episode for meta/episodes, and of all frames for meta/stats.json.

Names and shapes are lerobot's; the quantiles are exact: those of an episode over its frames, those of stats.json over
all frames. lerobot's own are length-weighted means of the episodes' quantiles, and become so again when it appends.

Shape letters: N values, V entries of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_IMAGES = 100
"""of an episode, at most; evenly spaced"""
STATEMENT = (
    "q01 to q99 in meta/episodes are quantiles over the frames of an episode; those in meta/stats.json over all"
    " exported frames, until lerobot appends episodes: then it replaces them by length-weighted means"
)
Stats = dict[str, Any]
"""statistic -> value as nested lists"""


def vector_stats(values: NDArray[Any]) -> Stats:
    """Of [N, V] numbers, or [N] of one each."""
    wide = values.reshape(len(values), -1).astype(np.float64)
    found = {
        "min": wide.min(axis=0),
        "max": wide.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
    }
    found |= dict(zip(QUANTILES, np.quantile(wide, list(QUANTILES.values()), axis=0)))
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


class ImageLevels:
    """How often each level of each channel occurs in some images: all their statistics follow from it, exactly."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), np.int64)
        self._images = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Count one image [height, width, 3]."""
        for channel in range(3):
            self._counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
        self._images += 1

    def merge(self, other: ImageLevels) -> None:
        """Count what the other has counted."""
        self._counts += other._counts
        self._images += other._images

    def stats(self) -> Stats:
        """Levels from 0 to 1, by channel [3, 1, 1]; `count` is that of the images."""
        level = np.arange(256) / 255.0
        total = self._counts.sum(axis=1)
        mean = self._counts @ level / total
        variance = (self._counts * (level - mean[:, None]) ** 2).sum(axis=1) / total
        there = self._counts > 0
        upto = self._counts.cumsum(axis=1)
        found = {
            "min": level[there.argmax(axis=1)],
            "max": level[255 - there[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        for name, share in QUANTILES.items():
            found[name] = level[(upto >= share * total[:, None]).argmax(axis=1)]
        shaped = {name: value.reshape(3, 1, 1).tolist() for name, value in found.items()}
        return shaped | {"count": [self._images]}


def sampled(frames: int) -> NDArray[np.int64]:
    """Numbers [N] of the frames whose images are counted."""
    return np.unique(np.linspace(0, frames - 1, min(frames, SAMPLED_IMAGES)).round().astype(np.int64))


def flat(stats: Mapping[str, Stats]) -> dict[str, Any]:
    """The columns of meta/episodes: `stats/<feature>/<statistic>`."""
    return {f"stats/{feature}/{name}": value for feature, each in stats.items() for name, value in each.items()}
