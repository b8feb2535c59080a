"""A step of brightness in a decoded JPEG, along the staircase that lost data leaves and nothing that is seen has.

Blocks store the difference of their brightness to the block before. Where bytes are lost within a block and the codes
still fit, all that follows is off by one value: from one MCU on, along its row and then along all rows below. The step
is as large at each MCU of that line; an object's edge is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_STEP = 4.0
"""grey levels, of 255"""
CLEAR = 10.0
"""times what is usual where no blocks meet: in a scene full of edges only a large step is found"""
UNEVEN = 0.12
"""largest deviation along the line, of the step"""
QUIET = 0.35
"""largest jump, of the step, where the two rows of MCUs are both before the loss or both after it"""


def lost_at(image: NDArray[np.uint8], mcu: tuple[int, int]) -> tuple[int, int] | None:
    """Row and column of the MCU where a step begins, None without one.

    `image` is [height, width, 3], `mcu` its blocks' height and width in pixels.
    """
    height, width = mcu
    rows, columns = image.shape[0] // height, image.shape[1] // width
    if rows < 3 or columns < 4:  # too short a line: the scene may look like it
        return None
    luma = image.astype(np.float32).mean(axis=2)
    lines = [_lines(luma[:, : columns * width], mcu, shift) for shift in (0, height // 4, height // 2, 3 * height // 4)]
    usual = float(np.median(np.abs(np.concatenate(lines[1:]))))
    step, place = _largest_even(lines[0])
    return place if step >= max(LEAST_STEP, CLEAR * usual) else None


def _lines(luma: NDArray[np.float32], mcu: tuple[int, int], shift: int) -> NDArray[np.floating]:
    """Jump at each MCU of each line between two rows of MCUs, or `shift` pixels below it. [lines, columns]."""
    rows = np.arange(mcu[0], luma.shape[0] - 1 - shift, mcu[0]) + shift
    return _jumps(luma, rows).reshape(len(rows), -1, mcu[1]).mean(axis=2)


def _largest_even(lines_LC: NDArray[np.floating]) -> tuple[float, tuple[int, int]]:
    """The largest step that is even along a line which goes down by one row at an MCU, and that MCU's place."""
    columns = lines_LC.shape[1]
    before = np.cumsum(np.pad(np.stack([lines_LC, lines_LC**2]), ((0, 0), (0, 0), (1, 0))), axis=2)
    # lost in the row below a line, at column c: that line from c + 1 on, and the next one up to c
    after, until = before[..., -1:] - before[..., 2:-1], before[..., 1:-2]
    mean, square = (after[:, :-1] + until[:, 1:]) / (columns - 1)
    step, many_after, many_until = np.abs(mean), np.arange(columns - 2, 0, -1), np.arange(1, columns - 1)
    ends = after[0, :-1] / many_after, until[0, 1:] / many_until
    others = after[0, 1:] / many_after, until[0, :-1] / many_until
    even = np.sqrt(np.maximum(square - mean**2, 0.0)) <= UNEVEN * step
    even &= (np.abs(ends[0] - mean) <= UNEVEN * step) & (np.abs(ends[1] - mean) <= UNEVEN * step)
    even &= (np.abs(others[0]) <= QUIET * step) & (np.abs(others[1]) <= QUIET * step)
    step = np.where(even, step, 0.0)
    row, column = np.unravel_index(int(step.argmax()), step.shape)
    return float(step[row, column]), (int(row) + 1, int(column) + 1)


def _jumps(luma: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.floating]:
    """What each row is brighter than the one above it, beyond the slopes on both sides. [rows, width]."""
    above, below = luma[rows - 1] - luma[rows - 2], luma[rows + 1] - luma[rows]
    jumps: NDArray[np.floating] = luma[rows] - luma[rows - 1] - 0.5 * (above + below)
    return jumps
