"""Time of one image conversion on the robot, 640x480, per encoding: `python bench/ros_convert.py`.

Prints the median and the 99th percentile in milliseconds; JPEG and PNG need OpenCV.
"""

from __future__ import annotations

import array
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from pirl_ros.sensing.sensor_messages import compressed_to_rgb, image_to_rgb, require_decoder

WIDTH, HEIGHT = 640, 480
BYTES_PER_PIXEL = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2, "rgb16": 6,
    "yuv422": 2, "yuv422_yuy2": 2, "nv12": 1,
}  # fmt: skip


def image_message(encoding: str) -> SimpleNamespace:
    """A sensor_msgs/Image as rclpy hands it over: its data is an array.array."""
    step = WIDTH * BYTES_PER_PIXEL[encoding]
    rows = HEIGHT * 3 // 2 if encoding == "nv12" else HEIGHT
    data = array.array("B", np.random.default_rng(0).integers(0, 256, step * rows, np.uint8).tobytes())
    return SimpleNamespace(width=WIDTH, height=HEIGHT, encoding=encoding, step=step, is_bigendian=0, data=data)


def compressed_message(suffix: str) -> SimpleNamespace:
    """A smooth image with noise, compressed."""
    ramp = np.linspace(0, 230, WIDTH)[None, :, None] + np.zeros((HEIGHT, 1, 3))
    picture = (ramp + np.random.default_rng(0).uniform(0, 25, ramp.shape)).astype(np.uint8)
    data = require_decoder().imencode(f".{suffix}", picture)[1].tobytes()
    return SimpleNamespace(format=suffix, data=array.array("B", data))


def milliseconds(call: Callable[[], object], count: int = 200) -> tuple[float, float]:
    """Median and 99th percentile of `count` calls."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def main() -> None:
    for encoding in BYTES_PER_PIXEL:
        message = image_message(encoding)
        median, tail = milliseconds(lambda message=message: image_to_rgb(message))
        print(f"{encoding:12} {median:6.3f} ms  p99 {tail:6.3f} ms")
    for suffix in ("jpeg", "png"):
        message = compressed_message(suffix)
        median, tail = milliseconds(lambda message=message: compressed_to_rgb(message), 50)
        print(f"{suffix:12} {median:6.3f} ms  p99 {tail:6.3f} ms  ({len(message.data)} bytes)")


if __name__ == "__main__":
    main()
