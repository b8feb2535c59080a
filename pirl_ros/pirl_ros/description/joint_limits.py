"""MoveIt's joint_limits.yaml: limits that a URDF has not, acceleration and jerk above all.

Read as MoveIt does: an entry counts where its `has_..._limits` is not false. Also read: `!degrees` and `!radians` of
ur_description, and the file wrapped as ROS 2 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_KEYS = {
    "low": ("has_position_limits", "min_position"),
    "high": ("has_position_limits", "max_position"),
    "velocity": ("has_velocity_limits", "max_velocity"),
    "acceleration": ("has_acceleration_limits", "max_acceleration"),
    "jerk": ("has_jerk_limits", "max_jerk"),
}


@dataclass(frozen=True)
class StatedLimits:
    """Limits of one joint in rad or m and seconds; None: not stated."""

    low: float | None = None
    high: float | None = None
    velocity: float | None = None
    acceleration: float | None = None
    jerk: float | None = None


class _Loader(yaml.SafeLoader):
    """A safe loader that knows two tags for numbers."""


def _tagged(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    value = float(loader.construct_scalar(node))
    return math.radians(value) if node.tag == "!degrees" else value


_Loader.add_constructor("!degrees", _tagged)
_Loader.add_constructor("!radians", _tagged)


def read_joint_limits(path: str) -> dict[str, StatedLimits]:
    """Return limits by joint name. Raises ValueError in one line: not readable, not such a file, not a number."""
    try:
        raw = _Loader(Path(path).read_text()).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    joints = _find(raw)
    if not joints:
        raise ValueError(f"{path} is no joint_limits.yaml of MoveIt: it has no key 'joint_limits' with joints")
    return {str(name): _limits(entry, f"{path}: {name}") for name, entry in joints.items()}


def _find(raw: Any) -> Mapping[str, Any] | None:
    """The mapping below the first `joint_limits`, whatever stands above it."""
    if not isinstance(raw, dict):
        return None
    if isinstance(found := raw.get("joint_limits"), dict):
        return found
    return next((found for value in raw.values() if (found := _find(value))), None)


def _limits(entry: Any, where: str) -> StatedLimits:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected keys and values, got {entry!r}")
    values = {}
    for field, (switch, key) in _KEYS.items():
        if key not in entry or entry.get(switch) is False:
            continue
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{where}: {key}: expected a finite number, got {value!r}")
        if field not in ("low", "high") and value <= 0:
            raise ValueError(f"{where}: {key} must be above 0, got {value:g}; without a limit write {switch}: false")
        values[field] = float(value)
    return StatedLimits(**values)
