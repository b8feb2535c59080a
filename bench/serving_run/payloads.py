"""What is sent and what comes back, the same for every implementation. numpy only: the peers' Pythons read it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HORIZON, ACTION_DIM, STATE_DIM = 50, 32, 32
INSTRUCTION = "put the red block into the bowl"


@dataclass(frozen=True)
class Payload:
    """Cameras of one size and a state of 32 numbers."""

    cameras: int
    height: int = 0
    width: int = 0

    def images(self) -> dict[str, NDArray[np.uint8]]:
        """Noise, which nothing can compress or recognise."""
        rng = np.random.default_rng(0)
        shape = (self.height, self.width, 3)
        return {f"camera_{i}": rng.integers(0, 256, shape, np.uint8) for i in range(self.cameras)}

    def state(self) -> NDArray[np.float32]:
        return np.arange(STATE_DIM, dtype=np.float32)


PAYLOADS = {"state": Payload(0), "3x224": Payload(3, 224, 224), "2x480x640": Payload(2, 480, 640)}
SOAK = "1x64"
ALL = PAYLOADS | {SOAK: Payload(1, 64, 64)}
