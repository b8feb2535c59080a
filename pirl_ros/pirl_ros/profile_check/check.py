"""`pirl robot`: writes a robot profile from a URDF, and prints one, its derived quantities, errors and warnings.

Needs no ROS, but to read a topic.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pirl_ros.profile_check.from_urdf import add_arguments, profile_of, write_profile

if TYPE_CHECKING:
    from pirl_contract import Field
    from pirl_ros.profile.profile import Profile


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `pirl robot`; returns 0, or 1 when the profile has errors."""
    parser = argparse.ArgumentParser(prog="pirl robot", description="robot profiles: write one from a URDF, check one")
    actions = parser.add_subparsers(dest="action", required=True, metavar="{check,from-urdf}")
    check = actions.add_parser("check", help="print a robot profile and its errors and warnings")
    check.add_argument("file", help="robot profile (YAML), like launch/params/franka.yaml")
    check.add_argument("--contract", metavar="FILE", help="write the robot's contract to this file as JSON")
    check.add_argument("--no-cameras", action="store_true", help="check as for a state-only policy")
    add_arguments(actions.add_parser("from-urdf", help="write a robot profile from a URDF"))
    options = parser.parse_args(arguments)
    try:
        if options.action == "from-urdf":
            text = profile_of(options)
            if options.out is None:
                print(text, end="")
                return 0
            return check_file(write_profile(options.out, text))
        return check_file(options.file, options.contract, not options.no_cameras)
    except ValueError as error:
        print(f"error    {error}", file=sys.stderr)
        return 1


def check_file(path: str, contract_path: str | None = None, cameras: bool = True) -> int:
    """Print the report of one profile and write its contract when asked; 1 when there are errors.

    ValueError: the profile cannot be read, its first mistake in one line.
    """
    try:
        # Not at the top: PyYAML is no dependency of the base package, and its absence has a fix of its own.
        from pirl_ros.profile.profile import load_profile
        from pirl_ros.profile_check.findings import find_all
    except ModuleNotFoundError as error:
        raise ValueError(f"'{error.name}' is not installed: pip install pyyaml (apt install python3-yaml)") from None
    loaded = load_profile(path)
    profile = loaded if cameras else loaded.without_cameras()
    for line in describe(profile):
        print(line)
    findings = find_all(profile)
    for finding in findings:
        print(f"{'error' if finding.error else 'warning':8} {finding.key}: {finding.text}")
    errors = sum(finding.error for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings")
    if contract_path is not None:
        _write(contract_path, profile)
    return 1 if errors else 0


def describe(profile: Profile) -> Iterator[str]:
    """Yield the report's lines: what the file says, worked out."""
    contract = profile.contract
    yield f"robot    {profile.robot}, {profile.rate_hz:g} Hz by {profile.tick}, contract {contract.hash}"
    for single in profile.singles:
        if profile.arms:
            yield f"arm      {single.robot.removeprefix(profile.robot).strip()}"
        yield from _arm(single)
    for camera in profile.cameras:
        kind = "CompressedImage" if camera.compressed else "Image"
        yield f"camera   {camera.name}: {camera.width}x{camera.height} {kind} on {camera.topic}, {camera.rule}"
    yield from _vector("state", contract.state)
    yield from _vector("action", contract.action)
    for single in profile.singles:
        yield from _motion(single)


def _arm(profile: Profile) -> Iterator[str]:
    yield f"command  {profile.command.kind} on {profile.command.topic}"
    gripper = profile.gripper
    yield f"gripper  {gripper.kind} on {gripper.topic}: {gripper.closed:g} closed, {gripper.open:g} {gripper.unit} open"
    yield "joint                               low      high     v/s     a/s2     j/s3"
    for joint in profile.arm.joints:
        limits = (
            f"{joint.low:8.3f}  {joint.high:8.3f}  {joint.velocity:6.2f}  {joint.acceleration:7.4g}  {joint.jerk:7.4g}"
        )
        yield f"  {joint.name:29}  {limits}"
    for finger in gripper.joints:
        yield f"  {finger.name:29}  {finger.low:8.3f}  {finger.high:8.3f}  {finger.velocity:6.2f}"


def _vector(name: str, fields: Sequence[Field]) -> Iterator[str]:
    yield f"{name:8} {len(fields)} entries"
    for index, field in enumerate(fields):
        limits = "" if field.low is None else f"  {field.low:g} .. {field.high:g}"
        yield f"  {index:2}  {field.name:30} {field.unit:5}{limits}"


def _motion(profile: Profile) -> Iterator[str]:
    from pirl_ros.control.kinematics import Chain
    from pirl_ros.profile_check.findings import braking, mid_range

    chain = Chain.from_table(profile.kinematics)
    for name, joints in (("joints at 0", np.zeros(len(profile.arm.joints))), ("in mid range", mid_range(profile))):
        position, rotation = chain.forward(joints)
        yield f"tool     {_metres(position)} with {name}, its z axis along {_metres(rotation[:, 2], unit='')}"
    box = profile.safety.workspace
    floor = profile.safety.floor
    lowest = (
        f", all joints above {floor:.3f} m" if floor > -math.inf else "; of the arm only the tool centre is checked"
    )
    yield f"box      {_metres(box.low)} to {_metres(box.high)}{lowest}"
    brake, safety = braking(profile), profile.safety
    yield (
        f"stopping {brake.joint} is the worst case: {safety.link_loss_s:g} s of checked motion after the last chunk,"
        f" then {brake.seconds:.2f} s of braking, {brake.way} in all at full speed"
    )
    ages = {"chunk": safety.max_chunk_age, "observation": safety.max_observation_age, "watchdog": safety.watchdog_s}
    yield f"ages     {', '.join(f'{name} {limit:g} s' for name, limit in ages.items())}, slop {safety.slop:g} s"


def _metres(values: Any, unit: str = " m") -> str:
    return "(" + ", ".join(f"{round(float(value), 3) + 0.0:.3f}" for value in values) + f"){unit}"


def _write(path: str, profile: Profile) -> None:
    try:
        Path(path).write_text(profile.contract.to_json() + "\n")
    except OSError as error:
        raise ValueError(f"contract cannot be written: {error}") from error
    print(f"contract {profile.contract.hash} written to {path}")


if __name__ == "__main__":
    sys.exit(main())
