"""An action in the contract's units as the simulators take it."""

from __future__ import annotations

import numpy as np

from pirl_contract.schema import Vector


def normalised(action: Vector, scale: Vector) -> Vector:
    """Divide by `scale` [D] and clip to [-1, 1]. Raises ValueError for another shape or a value that is not finite.

    The action and the result have the same shape.
    """
    action = np.asarray(action, np.float32)
    if action.shape != scale.shape:
        raise ValueError(f"an action has shape {scale.shape}, got {action.shape}")
    if not np.isfinite(action).all():
        raise ValueError(f"an action must be finite, got {action.tolist()}")
    return np.clip(action / scale, -1.0, 1.0)
