"""Checks that sent commands keep the limits: computed from the commands alone, independent of the governor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pirl_ros.control.kinematics import Chain
from pirl_ros.control.limits import Limits

Array = NDArray[np.float64]

_ROUNDING = 1e-9


def violations(commands: Array, limits: Limits, chain: Chain | Sequence[Chain]) -> dict[str, float]:
    """Return by how much of a limit the commands [N, J] of N periods go beyond it; only limits that are not kept.

    `chain`: of several arms, one after the other.

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
    chains, start = [chain] if isinstance(chain, Chain) else chain, 0
    boxes = zip(np.atleast_2d(limits.workspace_low), np.atleast_2d(limits.workspace_high), chains, strict=True)
    beyond["workspace"] = beyond["floor"] = -np.inf
    for low, high, each in boxes:
        end = start + len(each.origins)
        tool = np.stack([each.forward(joints)[0] for joints in commands[:, start:end]])
        beyond["workspace"] = max(beyond["workspace"], float(np.maximum(low - tool, tool - high).max()))
        heights = np.stack([each.places(joints)[:, 2] for joints in commands[:, start:end]])
        moving = np.ptp(heights, axis=0) > _ROUNDING
        beyond["floor"] = max(beyond["floor"], float((limits.floor - heights[:, moving]).max(initial=-np.inf)))
        start = end
    return {name: size for name, size in beyond.items() if size > _ROUNDING}
