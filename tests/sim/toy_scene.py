"""A scene that is imported by name in another process: an arm that goes where it is told."""

from __future__ import annotations

import os

import numpy as np

from pirl_contract.schema import Image, Vector


class ToyScene:
    def __init__(self, size: int, broken: bool = False) -> None:
        print("loaded: what a simulator prints is no message")
        if broken:
            raise ValueError(f"no scene of {size}")
        self.size, self.position = size, np.zeros(3, np.float32)

    def reset(self, episode: int, seed: int) -> None:
        if episode < 0:
            raise RuntimeError("no such state")
        self.position = np.float32([episode, seed % 97, 1 / 3])

    def step(self, action: Vector) -> bool:
        if action[0] > 90:
            os._exit(7)
        self.position = self.position + action
        return bool(self.position[0] > 2)

    def state(self) -> Vector:
        return self.position

    def images(self) -> dict[str, Image]:
        picture = np.arange(self.size * self.size * 3, dtype=np.uint8).reshape(self.size, self.size, 3)
        return {"base": picture, "wrist": picture[::-1]}

    def close(self) -> None:
        print("closed")


def pid_of_its_process(**settings: int) -> ToyScene:
    """Like `ToyScene`, but its state is the number of its process."""
    scene = ToyScene(**settings)
    scene.state = lambda: np.array([os.getpid()], np.float64)  # type: ignore[method-assign]
    return scene
