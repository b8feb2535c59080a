#!/usr/bin/env bash
# mujoco 3.3.0 and 4.0.0, MjModel.from_xml_string of a URDF: a revolute joint whose <limit> has lower="0" upper="0", or has
# no lower and upper, which means the same, as exporters write for a joint that is locked; and a finger with <mimic>.
# Expected: the joint can't move, or the file is rejected; the finger is coupled by an equality constraint.
# Seen: the joint has no limit at all: a range without extent is taken for none, also 0.5 to 0.5. A simulation made from a
# robot's URDF moves what can't move on the robot, and limits that are read back from the model are missing there.
# 3.3.0, which many benchmarks pin, drops <mimic> without a word, so the finger swings freely; 4.0.0 couples it.
# Output seen: "lower 0, upper 0: no limit", "neither given: no limit", "lower 0.5, upper 0.5: no limit" with both, "mimic: 0
# equality constraints" with 3.3.0, 1 with 4.0.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 3.3.0 4.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q "mujoco==$version" numpy==2.4.6
    "$folder/$version/bin/python" - <<'PY'
import mujoco

BODY = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
JOINT = '<joint name="{0}" type="revolute"><parent link="{1}"/><child link="{2}"/><axis xyz="0 1 0"/><limit {3} effort="9" velocity="2"/>{4}</joint>'


def read(*joints):
    links = "".join(f'<link name="{name}">{BODY}</link>' for name in ("first", "second")[: len(joints)])
    return mujoco.MjModel.from_xml_string(f'<robot name="arm"><link name="base"/>{links}{"".join(joints)}</robot>')


print("mujoco", mujoco.__version__)
found = {}
for said, limits in (
    ("lower 0, upper 0", 'lower="0" upper="0"'),
    ("neither given", ""),
    ("lower 0.5, upper 0.5", 'lower="0.5" upper="0.5"'),
    ("lower -1, upper 1", 'lower="-1" upper="1"'),
):
    found[said] = bool(read(JOINT.format("joint", "base", "first", limits, "")).jnt_limited[0])
    print(f"{said}: {'limit' if found[said] else 'no limit'}")
one = 'lower="-1" upper="1"'
model = read(JOINT.format("a", "base", "first", one, ""), JOINT.format("b", "base", "second", one, '<mimic joint="a"/>'))
print(f"mimic: {model.neq} equality constraints")
assert found == {
    "lower 0, upper 0": False, "neither given": False, "lower 0.5, upper 0.5": False, "lower -1, upper 1": True
}, "CHANGED: a locked joint is read in another way"
assert model.neq == (mujoco.__version__ != "3.3.0"), "CHANGED: mimic is read in another way"
PY
done
