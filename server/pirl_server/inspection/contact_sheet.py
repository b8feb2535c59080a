"""A contact sheet: what the policy saw at its decisions, who drove what followed, and where it was altered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pirl_contract import ControlSource
from pirl_server.episodes.schema import Episode
from pirl_server.inspection import canvas
from pirl_server.inspection.colours import SOURCE_COLOURS, rgb

CELLS, WIDTH = 24, 1600
"""most decisions on a sheet; its largest width in pixels"""
STRIP, CAPTION, MARGIN = 12, 20, 10
MIN_HEIGHT, MAX_HEIGHT = 96, 224


def save_contact_sheet(path: Path, episode: Episode) -> None:
    """Write a sheet of up to `CELLS` decisions, evenly spaced. Raises ValueError without cameras, OSError."""
    info = episode.info
    if not info.contract.cameras:
        raise ValueError(f"episode {info.id} has no cameras: there is no contact sheet of it, draw a plot")
    count = len(episode.calls.step)
    shown = np.unique(np.linspace(0, count - 1, min(count, CELLS)).round().astype(int)).tolist()
    height = int(np.clip(max(camera.height for camera in info.contract.cameras), MIN_HEIGHT, MAX_HEIGHT))
    cells = [_cell(episode, call, height) for call in shown]
    columns = max(1, min(len(cells), (WIDTH - MARGIN) // (cells[0].width + MARGIN)))
    lines = -(-len(cells) // columns)
    width = max(560, MARGIN + columns * (cells[0].width + MARGIN))
    sheet = canvas.blank(width, 62 + lines * (cells[0].height + MARGIN))
    _head(sheet, episode, len(shown))
    for number, cell in enumerate(cells):
        line, column = divmod(number, columns)
        sheet.paste(cell, (MARGIN + column * (cell.width + MARGIN), 62 + line * (cell.height + MARGIN)))
    sheet.save(path)


def _head(sheet: Image.Image, episode: Episode, shown: int) -> None:
    info, pen = episode.info, canvas.pen(sheet)
    outcome = {True: "success", False: "failure", None: "unlabelled"}[info.success]
    pen.text((MARGIN, 8), canvas.fitted(f"{info.instruction}: {outcome}", 18, sheet.width - 20), canvas.TEXT,
             canvas.font(18))  # fmt: skip
    line = (
        f"{info.robot_id}, {info.created[:10]}, {shown} of {len(episode.calls.step)} decisions,"
        f" {len(episode.steps.call)} steps; below each: who drove, x altered"
    )
    pen.text((MARGIN, 36), canvas.fitted(line, 12, sheet.width - 260), canvas.TEXT, canvas.font(12))
    left = sheet.width - 240
    for name, colour in SOURCE_COLOURS.items():
        pen.rectangle((left, 39, left + 12, 51), fill=rgb(colour))
        pen.text((left + 17, 36), name, canvas.TEXT, canvas.font(12))
        left += 80


def _cell(episode: Episode, call: int, height: int) -> Image.Image:
    """The cameras, a strip of the steps until the next decision, and a line of text."""
    images = canvas.cameras(episode, call, height)
    cell = canvas.blank(images.width, height + STRIP + CAPTION)
    cell.paste(images, (0, 0))
    steps, pen = _steps_of(episode, call), canvas.pen(cell)
    for place, step in enumerate(steps):
        left, right = (round(images.width * at / len(steps)) for at in (place, place + 1))
        source = ControlSource(int(episode.steps.source[step])).name.lower()
        pen.rectangle((left, height + 2, right - 1, height + STRIP), fill=rgb(SOURCE_COLOURS[source]))
        if episode.steps.alterations[step] and right - left >= 3:
            pen.text(((left + right) / 2, height + 6), "x", (0, 0, 0), canvas.font(10), anchor="mm")
    first = f"step {steps[0]}" if len(steps) else "unplayed"
    value = float(episode.calls.value[call])
    text = f"call {call}, {first}" + (f", value {value:.2f}" if np.isfinite(value) else "")
    pen.text((2, height + STRIP + 2), canvas.fitted(text, 12, images.width - 4), canvas.TEXT, canvas.font(12))
    return cell


def _steps_of(episode: Episode, call: int) -> range:
    """From the first step that played this call's chunk to the next one's; of a demonstration to the next observation.

    Those in between are in it whichever source drove them.
    """
    starts = np.asarray(episode.calls.step, np.int64)
    if (starts < 0).all():
        starts = np.searchsorted(episode.steps.time_ns, episode.calls.capture_time_ns, side="right")
    first = int(starts[call])
    if first < 0:
        return range(0)
    later = [int(each) for each in starts if each > first]
    return range(first, min(later, default=len(episode.steps.call)))
