"""Videos of a LeRobotDataset: one file of a camera holds the frames of many episodes, one after the other.

H.264 at a constant quality, a key frame at every other frame as lerobot does, so that a single one is found quickly. A
video changes pixels: `MIN_PSNR_DB` is what is kept of images of a scene, not of camera noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from pirl_server.interchange.checkpoints.source_folder import one_line

CODEC, QUALITY, KEY_FRAMES = "libx264", 18, 2
MIN_PSNR_DB = 33.0
"""of images without noise; see docs/how-to/bring-your-data.md"""
TOLERANCE_S = 1e-4
"""lerobot's: how far a frame's time in the file may be from the one that is looked for"""
Image = NDArray[np.uint8]


class VideoWriter:
    """Writes the frames of one camera to numbered files. Close it also when the export fails."""

    def __init__(self, fps: int, height: int, width: int) -> None:
        self._fps, self._height, self._width = fps, height, width
        self._container: Any = None
        self._stream: Any = None
        self.frames = 0
        """in the present file"""

    @property
    def seconds(self) -> float:
        """Length of the present file."""
        return self.frames / self._fps

    @property
    def pixel_format(self) -> str:
        """Colour at half the resolution, as usual, where the sides are even: else the codec rejects it."""
        return "yuv420p" if self._height % 2 == 0 and self._width % 2 == 0 else "yuv444p"

    def open(self, path: Path) -> None:
        """Begin a new file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        options = {"crf": str(QUALITY), "preset": "veryfast", "g": str(KEY_FRAMES)}
        self._stream = self._container.add_stream(CODEC, rate=self._fps, options=options)
        self._stream.width, self._stream.height = self._width, self._height
        self._stream.pix_fmt = self.pixel_format
        self._stream.time_base = Fraction(1, self._fps)
        self.frames = 0

    def add(self, image: Image) -> None:
        """Append one image [height, width, 3]."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self._fps)
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """End the file; nothing happens where none is open."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self.frames:
                container.mux(self._stream.encode())
        finally:
            container.close()

    def notes(self) -> dict[str, Any]:
        """What info.json says of the videos."""
        return {
            "video.height": self._height,
            "video.width": self._width,
            "video.codec": "h264",
            "video.pix_fmt": self.pixel_format,
            "video.fps": self._fps,
            "video.channels": 3,
            "video.g": KEY_FRAMES,
            "video.crf": QUALITY,
            "has_audio": False,
            "is_depth_map": False,
        }


def read_segment(path: Path, start_s: float, count: int, fps: float) -> Iterator[Image]:
    """Yield `count` images [height, width, 3] from a time in the file on, 1 / fps apart.

    Raises ValueError that names the file and the frame when one is not there, or not at its time.
    """
    wanted = 0
    with _opened(path) as container:
        stream = container.streams.video[0]
        container.seek(max(0, round(start_s / stream.time_base) - 1), backward=True, stream=stream)
        for frame in container.decode(stream):
            time_s = float(frame.pts * stream.time_base)
            due_s = start_s + wanted / fps
            if time_s < due_s - TOLERANCE_S:
                continue
            if time_s > due_s + TOLERANCE_S:
                break
            yield frame.to_ndarray(format="rgb24")
            wanted += 1
            if wanted == count:
                return
    raise ValueError(
        f"'{path}': no image at {start_s + wanted / fps:.4f} s, frame {wanted} of {count}: the video is cut short or"
        f" does not run at {fps:g} frames per second"
    )


def segment_digest(path: Path, start_s: float, count: int, fps: float) -> bytes:
    """The coded bytes of those images, without decoding them, in the order they are shown."""
    found: list[tuple[float, bytes]] = []
    with _opened(path) as container:
        stream = container.streams.video[0]
        container.seek(max(0, round(start_s / stream.time_base) - 1), backward=True, stream=stream)
        end_s = start_s + (count - 0.5) / fps
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            time_s = float(packet.pts * stream.time_base)
            if time_s > end_s + 64 / fps:  # far enough for frames that are coded out of order
                break
            if start_s - TOLERANCE_S <= time_s <= end_s:
                found.append((time_s, bytes(packet)))
    return b"".join(coded for _, coded in sorted(found))


def count_frames(path: Path) -> int:
    """How many images a file has. Raises ValueError for one that can't be read."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        return sum(1 for packet in container.demux(stream) if packet.pts is not None)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width. Raises ValueError for a file that can't be read."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        return stream.height, stream.width


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"'{path}' holds no video")
            yield container
    except FFmpegError as error:
        raise ValueError(f"'{path}' can't be read as a video, perhaps it was cut short: {one_line(error)}") from None
