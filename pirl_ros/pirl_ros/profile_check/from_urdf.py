"""`pirl robot from-urdf`: a profile from a URDF file, or from the topic robot_description of a running robot."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

_WAIT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `pirl robot from-urdf`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", help="URDF file; xacro where the package xacro is installed")
    source.add_argument("--topic", metavar="NAME", help="read the URDF from this topic, robot_description as a rule")
    parser.add_argument("--tip", metavar="LINK", help="link of the tool centre; without it they are listed")
    parser.add_argument(
        "--base", metavar="LINK", help="link that the arm stands on, its base frame (default: the root)"
    )
    parser.add_argument(
        "--gripper", nargs="+", default=[], metavar="JOINT", help="finger joints, the commanded one first"
    )
    parser.add_argument(
        "--limits", metavar="FILE", help="MoveIt's joint_limits.yaml: acceleration, jerk, tighter limits"
    )
    parser.add_argument("--robot", metavar="NAME", help="name of the robot in its contract (default: the URDF's)")
    parser.add_argument("--rate", type=float, default=20.0, metavar="HZ", help="control rate (default: %(default)g)")
    parser.add_argument("--out", metavar="FILE", help="write the profile there and check it (default: print it)")


def profile_of(options: argparse.Namespace) -> str:
    """Return the profile's text and print what was found to stderr. Raises ValueError in one line."""
    try:
        # Not at the top: PyYAML is no dependency of the base package, and its absence has a fix of its own.
        from pirl_ros.description.arm import find_arm
        from pirl_ros.description.joint_limits import read_joint_limits
        from pirl_ros.description.profile_text import profile_text
        from pirl_ros.description.source_text import description_text
        from pirl_ros.description.urdf import read_urdf
    except ModuleNotFoundError as error:
        raise ValueError(f"'{error.name}' is not installed: pip install pyyaml (apt install python3-yaml)") from None
    if options.rate <= 0:
        raise ValueError(f"--rate must be above 0, got {options.rate:g}")
    text = description_text(options.file) if options.topic is None else _published(options.topic)
    urdf = read_urdf(text)
    limits = read_joint_limits(options.limits) if options.limits else {}
    arm = find_arm(urdf, options.tip, options.base, options.gripper, limits)
    fingers = "no gripper" if arm.gripper is None else f"{len(arm.gripper.joints)} gripper joints"
    print(
        f"{urdf.name}: {len(arm.joints)} joints from {arm.kinematics.frame} to {arm.tip}, with {arm.folded} fixed ones"
        f" between, {fingers}. {urdf.collision_shapes} collision shapes are not used: of the arm only the"
        " tool centre is kept inside safety.workspace",
        file=sys.stderr,
    )
    name = options.robot or re.sub(r"[^A-Za-z0-9_.-]", "_", urdf.name)
    where = Path(options.file).name if options.topic is None else f"the topic {options.topic}"
    return profile_text(arm, where, name, options.rate)


def write_profile(path: str, text: str) -> str:
    """Write a profile where there is none yet, return its path. ValueError: there is one, or it cannot be written."""
    try:
        with Path(path).open("x") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} exists and may have been edited: give another --out, or delete it") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error}") from None
    return path


def _published(topic: str) -> str:
    try:
        from pirl_ros.adapters.description_topic import read_description
    except ModuleNotFoundError as error:
        raise ValueError(f"'{error.name}' is not importable: --topic needs ROS 2, source its setup.bash") from None
    return read_description(topic, _WAIT_S)
