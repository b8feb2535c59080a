"""JPEG files of the newest image of each camera: made when one is asked for, and a few times a second at most."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pirl_server.episodes.image_codecs import encode_jpeg
from pirl_server.serving.connections import NewestObservations

LONGEST = 480
"""pixels of a thumbnail's longer side; smaller images keep their size"""
QUALITY = 80
RENEW_S = 0.2
"""a file is at least so old before another one is made of the same camera, however many people look"""
MAX_FILES = 256


@dataclass(frozen=True)
class Thumbnail:
    """One JPEG file."""

    data: bytes
    number: int
    """of the observation it shows"""
    made: float
    """monotonic seconds"""


class Thumbnails:
    """Files by robot and camera. Any thread; `of` computes, so call it beside the event loop."""

    def __init__(self, newest: NewestObservations, clock: Callable[[], float] = time.monotonic) -> None:
        self._newest, self._clock, self._lock = newest, clock, threading.Lock()
        self._files: OrderedDict[tuple[str, str], Thumbnail] = OrderedDict()

    def of(self, robot_id: str, camera: str) -> Thumbnail:
        """Return the file of a camera. Raises KeyError when the robot, or this camera of it, has sent no image."""
        key, shown = (robot_id, camera), self._newest.of(robot_id)
        if shown is None or camera not in shown.observation.images:
            raise KeyError(camera)
        with self._lock:
            made = self._files.get(key)
        if made and (made.number == shown.number or self._clock() - made.made < RENEW_S):
            return made
        image = shrunk(np.asarray(shown.observation.images[camera], np.uint8))
        thumbnail = Thumbnail(encode_jpeg(image, QUALITY), shown.number, self._clock())
        with self._lock:
            self._files[key] = thumbnail
            self._files.move_to_end(key)
            while len(self._files) > MAX_FILES:
                self._files.popitem(last=False)
        return thumbnail


def shrunk(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image [height, width, 3], uint8, as [h, w, 3] of `LONGEST` pixels on its longer side, or fewer."""
    height, width = image.shape[:2]
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
