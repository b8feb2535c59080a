"""Does it grow? A straight line through the samples, and how sure its slope is."""

from __future__ import annotations

import numpy as np

BLOCKS, T_95 = 20, 2.101
"""neighbouring samples resemble each other; means of 20 blocks hardly do. Student's t, 18 degrees of freedom, 95 %"""


def slope_per_hour(seconds: list[float], values: list[float]) -> tuple[float, float]:
    """Least squares through the means of 20 blocks: slope per hour and half the width of its 95 % interval.

    The first fifth is left out: caches fill. Raises ValueError for fewer than 25 samples.
    """
    first = len(seconds) // 5
    if len(seconds) - first < BLOCKS:
        raise ValueError(f"{len(seconds)} samples are too few for a slope, 25 are needed")
    x = np.array([block.mean() for block in np.array_split(np.array(seconds[first:]) / 3600, BLOCKS)])
    y = np.array([block.mean() for block in np.array_split(np.array(values[first:]), BLOCKS)])
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    residual = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt((residual**2).sum() / (BLOCKS - 2) / spread)
    return float(slope), float(T_95 * error)
