"""Declares typed, ranged and described parameters in one line each."""

from __future__ import annotations

from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from pirl_ros.profile.profile import Profile, load_profile

T = TypeVar("T", str, bool, int, float, list[int])


def declare(
    node: Any,
    name: str,
    default: T,
    description: str,
    between: tuple[float, float] | None = None,
    dynamic: bool = False,
) -> T:
    """Declare a parameter and return its value. A change outside `between`, or of one not `dynamic`, is rejected."""
    descriptor = ParameterDescriptor(description=description, read_only=not dynamic)
    if between is not None and isinstance(default, int):
        low, high = (int(limit) for limit in between)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    elif between is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=between[0], to_value=between[1], step=0.0)]
    value: T = node.declare_parameter(name, default, descriptor).value
    return value


def declare_profile(node: Any) -> None:
    """Declare what `read_profile` reads."""
    declare(node, "profile", "", "path of the robot profile (YAML)")
    declare(node, "use_cameras", True, "false: state-only policy, no camera is subscribed to")


def read_profile(node: Any) -> Profile:
    """Return the robot profile named by the parameters. ValueError when it is missing or wrong."""
    path = node.get_parameter("profile").value
    if not path:
        raise ValueError(
            "parameter 'profile' is empty: give the path of a robot profile like launch/params/panda_sim.yaml"
        )
    profile = load_profile(path)
    return profile if node.get_parameter("use_cameras").value else profile.without_cameras()
