"""Declares typed, ranged and described parameters in one line each."""

from __future__ import annotations

import difflib
import math
from array import array
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException

from pirl_ros.profile.profile import Profile, load_profile

T = TypeVar("T", str, bool, int, float, list[int])
Settable = Literal["at start", "unconfigured", "always"]
"""until when a parameter can be set: only at start; while its node is unconfigured; at any time"""
_QUOTES = """in quotes: -p {name}:='"{value}"'"""


def declare(
    node: Any,
    name: str,
    default: T,
    description: str,
    between: tuple[float, float] | None = None,
    settable: Settable = "unconfigured",
) -> T:
    """Declare a parameter and return its value; what was given at start replaces the default.

    The node declares its overrides automatically, so that they are read here whatever their type is. A number is taken
    where it has another type than the parameter and the same value, 1 for 1.0. ValueError: what was given is of another
    type or not `between`. A later change that is not `settable` is rejected.
    """
    fixed = settable == "at start" or not hasattr(node, "until_configured")
    descriptor = ParameterDescriptor(description=description, read_only=fixed)
    if settable == "unconfigured" and not fixed:
        node.until_configured.add(name)
        descriptor.additional_constraints = "read when the node is configured"
    if between is not None and isinstance(default, int):
        low, high = (int(limit) for limit in between)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
    elif between is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=between[0], to_value=between[1], step=0.0)]
    value = default
    if node.has_parameter(name):
        value = _converted(name, default, node.get_parameter(name).value)
        node.undeclare_parameter(name)
    try:
        declared: T = node.declare_parameter(name, value, descriptor, ignore_override=True).value
    except ParameterException:
        assert between is not None
        raise ValueError(f"parameter '{name}' must be in [{between[0]:g}, {between[1]:g}], got {value}") from None
    return declared


def drop_unknown(nodes: Sequence[Any]) -> list[str]:
    """Undeclare what was given at start to nodes that do not know it; call it once all of theirs are declared.

    Returns a sentence for each parameter that no node of this process knows.
    """
    known, strange = set[str](), set[str]()
    for node in nodes:
        names = set(node.get_parameters_by_prefix(""))
        mine = {name for name in names if node.describe_parameter(name).description or _is_of_rclpy(name)}
        known |= mine
        strange |= names - mine
        for name in names - mine:
            node.undeclare_parameter(name)
    sentences = []
    for name in sorted(strange - known):
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        sentences.append(f"no node of this process has a parameter '{name}', it is ignored{hint}")
    return sentences


def declare_profile(node: Any) -> None:
    """Declare what `read_profile` reads."""
    declare(node, "profile", "", "path of the robot profile (YAML)")
    declare(node, "use_cameras", True, "false: state-only policy, no camera is subscribed to")


def read_profile(node: Any) -> Profile:
    """Return the robot profile named by the parameters. ValueError when it is missing or wrong."""
    path = node.get_parameter("profile").value
    if not path:
        raise ValueError(
            "parameter 'profile' is empty: give the path of a robot profile like launch/params/franka.yaml"
            " (to ros2 launch: robot:=NAME or profile:=FILE)"
        )
    profile = load_profile(path)
    return profile if node.get_parameter("use_cameras").value else profile.without_cameras()


def _is_of_rclpy(name: str) -> bool:
    return name in ("use_sim_time", "start_type_description_service") or name.startswith("qos_overrides.")


def _converted(name: str, default: Any, value: Any) -> Any:
    """Return `value` as the type of `default`; of a list, its entries. ValueError: it is of another type."""
    if isinstance(default, list):
        entries = list(value) if isinstance(value, (list, array)) else [value]
        if entries and all(type(entry) in (int, float) and float(entry).is_integer() for entry in entries):
            return [int(entry) for entry in entries]
        raise ValueError(f"parameter '{name}' must be a list of whole numbers, got {_shown(value)}")
    if type(default) in (int, float) and type(value) in (int, float) and math.isfinite(value):
        if value == type(default)(value):
            return type(default)(value)
    elif type(value) is type(default) and not isinstance(value, float):
        return value
    words = {
        str: f"a text, write it {_QUOTES.format(name=name, value=_shown(value))}",
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
    }
    raise ValueError(f"parameter '{name}' must be {words[type(default)]}; got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, array) else value)
