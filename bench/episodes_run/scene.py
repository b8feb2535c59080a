"""Images of a moving scene with sensor noise, states and actions: the same bytes for every layout. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CAMERAS = ("wrist", "base")
STATE, ACTION, HORIZON, NODES = 14, 7, 10, 5
FPS = 20


@dataclass(frozen=True)
class Size:
    """Of one episode: a call and a step for each image."""

    steps: int
    side: int


def episode(number: int, size: Size) -> dict[str, np.ndarray]:
    """Images [steps, side, side, 3] by camera, state [steps, 14], action [steps, 7]."""
    random = np.random.default_rng(number)
    found: dict[str, np.ndarray] = {}
    noise = random.normal(0.0, 2.0, (4, size.side, size.side, 3))
    for camera in CAMERAS:
        coarse = random.integers(0, 256, (12, 12, 3)).astype(np.float32)
        world = np.kron(coarse, np.ones((-(-size.side // 6), -(-size.side // 6), 1), np.float32))
        for apart in (1, 2, 4, 8, 16):  # soft edges
            world = (world + np.roll(world, apart, 0) + np.roll(world, apart, 1) + np.roll(world, apart, (0, 1))) / 4
        images = np.empty((size.steps, size.side, size.side, 3), np.uint8)
        for step in range(size.steps):
            at = (step * 2) % size.side, step % size.side
            seen = world[at[0] : at[0] + size.side, at[1] : at[1] + size.side]
            images[step] = np.clip(seen + np.roll(noise[step % 4], 7 * step, 0), 0, 255)
        found[camera] = images
    found["state"] = random.normal(size=(size.steps, STATE)).astype(np.float32)
    found["action"] = random.normal(size=(size.steps, ACTION)).astype(np.float32)
    return found
