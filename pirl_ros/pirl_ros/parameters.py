"""Declared, typed and described parameters in one line each."""

from __future__ import annotations

from typing import Any, TypeVar

from rcl_interfaces.msg import ParameterDescriptor

from pirl_ros.profile import Profile, load_profile

T = TypeVar("T", str, bool, int, float, list[int])


def declare(node: Any, name: str, default: T, description: str) -> T:
    """Declare a parameter that is fixed at start and return its value."""
    descriptor = ParameterDescriptor(description=description, read_only=True)
    value: T = node.declare_parameter(name, default, descriptor).value
    return value


def declare_profile(node: Any) -> None:
    """Declare what `read_profile` reads."""
    declare(node, "profile", "", "path of the robot profile (YAML)")
    declare(node, "use_cameras", True, "false: the policy sees the state only")


def read_profile(node: Any) -> Profile:
    """Return the robot profile named by the parameters. ValueError when it is missing or wrong."""
    path = node.get_parameter("profile").value
    if not path:
        raise ValueError(
            "parameter 'profile' is empty: give the path of a robot profile like launch/params/panda_sim.yaml"
        )
    profile = load_profile(path)
    return profile if node.get_parameter("use_cameras").value else profile.without_cameras()
