"""Checks that sent commands keep the limits: computed from the commands alone, independent of the governor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits

Array = NDArray[np.float64]

_ROUNDING = 1e-9


def violations(commands: Array, limits: Limits, chain: Chain) -> dict[str, float]:
    """Return by how much of a limit the commands [N, J] of N periods go beyond it; only limits that are not kept.

    The first command counts as at rest. Values: part of the limit; radians and metres for position and workspace.
    """
    if not np.isfinite(commands).all():
        return {"finite": float(np.count_nonzero(~np.isfinite(commands)))}
    dt = limits.period_s
    rest = np.repeat(commands[:1], 3, axis=0)
    path = np.vstack([rest, commands])
    beyond = {"position": float(np.maximum(limits.low - path, path - limits.high).max())}
    rates = {"velocity": limits.velocity, "acceleration": limits.acceleration, "jerk": limits.jerk}
    for order, (name, limit) in enumerate(rates.items(), start=1):
        beyond[name] = float((np.abs(np.diff(path, order, axis=0)) / (limit * dt**order)).max()) - 1.0
    tool = np.stack([chain.forward(joints)[0] for joints in commands])
    beyond["workspace"] = float(np.maximum(limits.workspace_low - tool, tool - limits.workspace_high).max())
    if limits.floor > -np.inf:
        heights = np.stack([chain.places(joints)[:, 2] for joints in commands])
        moving = np.ptp(heights, axis=0) > _ROUNDING
        beyond["floor"] = float((limits.floor - heights[:, moving]).max(initial=-np.inf))
    return {name: size for name, size in beyond.items() if size > _ROUNDING}
