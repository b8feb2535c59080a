"""An independent look at recorded joint commands: it shares no code with the governor.

Speeds and accelerations are finite differences over the stated control period, whatever the clock said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml


def violations(commands_TJ: np.ndarray, profile_path: str, tolerance: float = 1e-3) -> dict[str, int]:
    """Return how many commands break which limit of the profile. T = control periods without a gap, J = joints."""
    profile = yaml.safe_load(Path(profile_path).read_text())
    joints = profile["arm"]["joints"]
    low, high, velocity, acceleration = (
        np.array([joint[key] for joint in joints]) for key in ("low", "high", "velocity", "acceleration")
    )
    rate_hz, scale = profile["rate_hz"], profile["safety"].get("speed_scale", 1.0)
    speed = np.diff(commands_TJ, axis=0) * rate_hz
    change = np.diff(speed, axis=0) * rate_hz
    slack = 1.0 + tolerance
    return {
        "not finite": int((~np.isfinite(commands_TJ)).any(axis=1).sum()),
        "position": int(((commands_TJ < low - tolerance) | (commands_TJ > high + tolerance)).any(axis=1).sum()),
        "velocity": int((np.abs(speed) > velocity * scale * slack).any(axis=1).sum()),
        "acceleration": int((np.abs(change) > acceleration * slack).any(axis=1).sum()),
    }
