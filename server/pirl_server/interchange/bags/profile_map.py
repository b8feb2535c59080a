"""A robot profile read as a topic map and a contract, without the robot's package.

The rules are those of `pirl_ros.profile`, which may not be imported here; a test compares both for shipped profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pirl_contract import Camera, Contract, Field
from pirl_server.interchange.bags.topic_map import MapFile, parse_map

QUATERNION = ("qw", "qx", "qy", "qz")


def is_profile(raw: Mapping[str, Any]) -> bool:
    """Whether this is a robot profile, by keys that no map has."""
    return {"robot", "arm", "kinematics"} <= set(raw) or {"robot", "arms"} <= set(raw)


def of_profile(raw: Mapping[str, Any]) -> MapFile:
    """Return the map and the contract of a profile. Raises ValueError that names what it lacks."""
    if "arms" in raw:
        raise ValueError("the profile has several arms: give a map of topics, and the robot's contract")
    try:
        contract, topics = _contract(raw), _topics(raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a robot profile: {error!r}; `pirl robot check FILE` says more") from None
    return MapFile(parse_map(topics), contract)


def _topics(raw: Mapping[str, Any]) -> dict[str, Any]:
    gripper, command = raw["gripper"], raw["command"]
    joints = [joint["name"] for joint in raw["arm"]["joints"]]
    states = [raw["joint_states"], *([gripper["joint_states"]] if gripper.get("joint_states") else [])]
    topics: dict[str, Any] = {
        "joint_states": states,
        "max_age": float(raw["safety"]["max_observation_age"]),
        "cameras": {camera["name"]: camera["topic"] for camera in raw.get("cameras") or []},
        "poses": {pose["name"]: pose["topic"] for pose in raw.get("poses") or []},
        "wrenches": {wrench["name"]: wrench["topic"] for wrench in raw.get("wrenches") or []},
    }
    if command["kind"] in ("joint_trajectory", "forward_position"):
        topics["commands"] = [{"topic": command["topic"], "joints": list(command.get("joints") or joints)}]
    if gripper.get("kind", "joint_trajectory") == "joint_trajectory":
        topics["gripper"] = {
            "topic": gripper["topic"], "joint": gripper["command_joint"], "closed": float(gripper["closed"]),
            "open": float(gripper["open"]),
        }  # fmt: skip
    return topics


def _contract(raw: Mapping[str, Any]) -> Contract:
    gripper = raw["gripper"]
    finger_unit = gripper.get("unit", "m")
    joints = [*zip(_arm_units(raw), raw["arm"]["joints"]), *((finger_unit, each) for each in gripper["joints"])]
    state = [Field(f"{joint['name']}.position", unit, joint["low"], joint["high"]) for unit, joint in joints]
    if raw.get("velocities", True):
        state += [
            Field(f"{joint['name']}.velocity", f"{unit}/s", -joint["velocity"], joint["velocity"])
            for unit, joint in joints
        ]
    for pose in raw.get("poses") or []:
        turn = () if pose.get("position_only") else QUATERNION
        state += [Field(f"{pose['name']}.{axis}", "m") for axis in "xyz"]
        state += [Field(f"{pose['name']}.{part}", "1") for part in turn]
    for wrench in raw.get("wrenches") or []:
        name, force, torque = wrench["name"], wrench["force"], wrench["torque"]
        state += [Field(f"{name}.f{axis}", "N", -force, force) for axis in "xyz"]
        state += [Field(f"{name}.t{axis}", "Nm", -torque, torque) for axis in "xyz"]
    return Contract(
        robot=raw["robot"],
        cameras=tuple(Camera(each["name"], each["height"], each["width"]) for each in raw.get("cameras") or []),
        state=tuple(state),
        action=(*_arm_action(raw), Field("gripper", "1", -1.0, 1.0)),
        rate_hz=raw["rate_hz"],
    )


def _arm_action(raw: Mapping[str, Any]) -> list[Field]:
    joints, kind = list(zip(_arm_units(raw), raw["arm"]["joints"])), raw.get("action", "tcp_delta")
    if not isinstance(kind, str):
        raise ValueError("the profile's action is a list of parts, whose entries no controller's topic has: give a map")
    if kind == "tcp_delta":
        return [Field(f"tcp_d{axis}", "m", -raw["tcp_step"], raw["tcp_step"]) for axis in "xyz"]
    if kind == "joint_position":
        return [Field(f"{joint['name']}.target", unit, joint["low"], joint["high"]) for unit, joint in joints]
    ways = [(unit, joint["name"], joint["high"] - joint["low"]) for unit, joint in joints]
    return [Field(f"{name}.delta", unit, -way, way) for unit, name, way in ways]


def _arm_units(raw: Mapping[str, Any]) -> list[str]:
    return ["m" if each.get("type") == "prismatic" else "rad" for each in raw["kinematics"]["joints"]]
