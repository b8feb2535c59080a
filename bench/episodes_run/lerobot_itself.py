"""LeRobotDataset of lerobot 0.6.1 as it comes, in its own Python: recorded frame by frame, read by delta timestamps."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from scene import ACTION, CAMERAS, FPS, STATE, Size

os.environ["HF_HUB_OFFLINE"] = "1"


class Itself:
    def __init__(self, folder: Path, size: Size) -> None:
        shape = (size.side, size.side, 3)
        names = ["height", "width", "channels"]
        features: dict[str, Any] = {
            f"observation.images.{name}": {"dtype": "video", "shape": shape, "names": names} for name in CAMERAS
        }
        features["observation.state"] = {"dtype": "float32", "shape": (STATE,), "names": None}
        features["action"] = {"dtype": "float32", "shape": (ACTION,), "names": None}
        self._root, self._size = folder / "dataset", size
        shutil.rmtree(self._root, ignore_errors=True)
        self._dataset = LeRobotDataset.create("bench/bench", FPS, features, self._root, image_writer_threads=4)

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        for step in range(self._size.steps):
            frame = {f"observation.images.{name}": data[name][step] for name in CAMERAS}
            frame |= {"observation.state": data["state"][step], "action": data["action"][step], "task": "push"}
            self._dataset.add_frame(frame)

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        self._dataset.save_episode()

    def seal(self) -> None:
        self._dataset.finalize()
        self._read = {length: self._open(length) for length in (1, 16)}

    def _open(self, length: int) -> LeRobotDataset:
        keys = [f"observation.images.{name}" for name in CAMERAS] + ["observation.state"]
        deltas = {key: [step / FPS for step in range(length)] for key in keys}
        return LeRobotDataset("bench/bench", root=self._root, delta_timestamps=deltas)

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        item = self._read[stop - start][number * self._size.steps + start]
        cameras = [item[f"observation.images.{name}"] for name in CAMERAS]
        seen = torch.cat([each if each.ndim == 4 else each[None] for each in cameras])  # one image has no time axis
        return (seen * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()

    def whole(self, number: int) -> None:
        first = number * self._size.steps
        for start in range(0, self._size.steps, 16):
            self._read[16][first + start]

    def batches(self, count: int, length: int, batch: int, written: int) -> float:
        generator = torch.Generator().manual_seed(0)
        loader = torch.utils.data.DataLoader(
            self._read[length], batch, shuffle=True, num_workers=2, generator=generator, persistent_workers=True
        )
        rest = iter(loader)
        for _ in range(5):  # what its workers have ready beyond that was made before the clock runs
            next(rest)
        began = time.perf_counter()
        for _ in range(count):
            next(rest)
        return time.perf_counter() - began


def make(name: str, folder: Path, size: Size) -> Itself:
    return Itself(folder, size)
