"""Colours that mean the same in every figure, sheet and video: who drove."""

from __future__ import annotations

from pirl_contract import ControlSource

SOURCE_COLOURS = {
    ControlSource.POLICY.name.lower(): "#2e7d32",
    ControlSource.HUMAN.name.lower(): "#e67e22",
    ControlSource.HOLD.name.lower(): "#7f8c8d",
}
"""control source -> colour"""


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of a colour like '#2e7d32'."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
