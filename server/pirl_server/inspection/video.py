"""A video of an episode: one frame per step at the robot's rate; all cameras, the action, who drove, chunk by chunk.

Shape letters: D action.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pirl_contract import ControlSource
from pirl_server.episodes.schema import Episode
from pirl_server.inspection import canvas
from pirl_server.inspection.colours import SOURCE_COLOURS, rgb
from pirl_server.inspection.decision import names_of
from pirl_server.inspection.timeline import Timeline, timeline

MIN_HEIGHT, MAX_HEIGHT, PANEL, HEAD, FOOT, BORDER = 224, 480, 300, 30, 30, 4
STORED, EXECUTED = (31, 78, 121), (20, 20, 20)


def save_video(path: Path, episode: Episode) -> None:
    """Write an MP4 (H.264). Raises ValueError for an episode without a step, OSError.

    Images change with the decisions only: those in between are not stored.
    """
    line = timeline(episode)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(episode.info.contract.rate_hz).limit_denominator(1000))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20", "preset": "veryfast"}
        for number, frame in enumerate(frames(episode, line)):
            if number == 0:
                stream.width, stream.height = frame.shape[1], frame.shape[0]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def frames(episode: Episode, line: Timeline) -> Iterator[NDArray[np.uint8]]:
    """Yield one frame per step, uint8 RGB [height, width, 3], of an even height and width."""
    heights = [camera.height for camera in episode.info.contract.cameras]
    height = int(np.clip(max(heights, default=MIN_HEIGHT), MIN_HEIGHT, MAX_HEIGHT))
    height = max(height, 22 * len(episode.info.contract.action) + 8)
    strip: Image.Image | None = None
    images: tuple[int, Image.Image] | None = None
    for step in range(len(episode.steps.call)):
        call = int(line.seen[step])
        if images is None or images[0] != call:
            images = (call, canvas.cameras(episode, call, height))
        width = images[1].width + PANEL + 2 * BORDER
        strip = strip or _strip(episode, line, width)
        yield np.asarray(_frame(episode, line, step, images[1], strip))


def _frame(episode: Episode, line: Timeline, step: int, images: Image.Image, strip: Image.Image) -> Image.Image:
    height = images.height
    whole = canvas.blank(_even(strip.width), _even(HEAD + height + 2 * BORDER + FOOT))
    pen, source = canvas.pen(whole), ControlSource(int(episode.steps.source[step])).name.lower()
    colour = rgb(SOURCE_COLOURS[source])
    pen.rectangle((0, HEAD, images.width + 2 * BORDER - 1, HEAD + height + 2 * BORDER - 1), fill=colour)
    whole.paste(images, (BORDER, HEAD + BORDER))
    pen.text((6, 6), canvas.fitted(_said(episode, step, source), 14, whole.width - 12), canvas.TEXT, canvas.font(14))
    _panel(whole, episode, line, step, images.width + 2 * BORDER)
    top = HEAD + height + 2 * BORDER
    whole.paste(strip, (0, top))
    at = round((step + 0.5) * strip.width / len(episode.steps.call))
    pen.rectangle((at - 1, top, at + 1, top + FOOT), fill=(0, 0, 0))
    return whole


def _said(episode: Episode, step: int, source: str) -> str:
    steps, rate = episode.steps, episode.info.contract.rate_hz
    call = int(steps.call[step])
    chunk = f"call {call} action {int(steps.index[step])}" if call >= 0 else "no chunk"
    altered = names_of(int(steps.alterations[step]))
    return f"step {step} ({step / rate:.1f} s), {source}, {chunk}" + (f", altered: {altered}" if altered else "")


def _panel(whole: Image.Image, episode: Episode, line: Timeline, step: int, left: int) -> None:
    """Each entry of the action on its range: what the chunk says as a bar, what was executed as a mark."""
    pen = canvas.pen(whole)
    low_D, high_D = _ranges(episode, line)
    start, width = left + 118, PANEL - 130
    for entry, field in enumerate(episode.info.contract.action):
        top = HEAD + BORDER + 22 * entry
        pen.text((left + 6, top + 2), canvas.fitted(field.name, 12, 108), canvas.TEXT, canvas.font(12))
        pen.rectangle((start, top + 8, start + width, top + 11), fill=canvas.FAINT)

        def at(value: float, entry: int = entry) -> float:
            share = float((value - low_D[entry]) / (high_D[entry] - low_D[entry]))
            return start + width * min(1.0, max(0.0, share))

        if np.isfinite(commanded := float(line.commanded[step, entry])):
            pen.rectangle((at(commanded) - 2, top + 3, at(commanded) + 2, top + 16), fill=STORED)
        done = at(float(episode.steps.executed[step, entry]))
        pen.ellipse((done - 4, top + 5.5, done + 4, top + 13.5), outline=EXECUTED, width=2)


def _ranges(episode: Episode, line: Timeline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The limits of each entry [D], or what occurred where it has none."""
    fields = episode.info.contract.action
    values = np.concatenate([episode.steps.executed, line.commanded])
    least, most = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    low = np.array([least[at] if field.low is None else field.low for at, field in enumerate(fields)], np.float64)
    high = np.array([most[at] if field.high is None else field.high for at, field in enumerate(fields)], np.float64)
    return low, np.where(high > low, high, low + 1.0)


def _strip(episode: Episode, line: Timeline, width: int) -> Image.Image:
    """The whole episode from left to right: who drove, where a chunk begins, below it where actions were altered."""
    strip = canvas.blank(_even(width), FOOT)
    pen, count = canvas.pen(strip), len(episode.steps.call)
    for source, first, after in line.runs:
        left, right = (first * strip.width / count, after * strip.width / count)
        pen.rectangle((left, 4, right, 18), fill=rgb(SOURCE_COLOURS[source.name.lower()]))
    for step in np.flatnonzero(line.begins):
        pen.rectangle((step * strip.width / count, 4, step * strip.width / count, 18), fill=(255, 255, 255))
    for step in np.flatnonzero(episode.steps.alterations):
        pen.rectangle((step * strip.width / count, 21, (step + 1) * strip.width / count, 26), fill=(192, 57, 43))
    return strip


def _even(length: int) -> int:
    """H.264 with colours at half the resolution needs even sides."""
    return length + length % 2
