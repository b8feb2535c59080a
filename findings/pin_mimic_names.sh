#!/usr/bin/env bash
# pin 4.1.0 (Pinocchio's Python wheels), URDF of a gripper whose second finger has <mimic joint="..."/>: both fingers hang on
# the same link, as on most grippers.
# Expected: the model has one number for the gripper, and the names of the joints do not matter.
# Seen: `buildModelFromUrdf`, here from a string, gives each finger a number of its own and forgets the coupling, unless it is
# told `mimic=True`. Then it depends on the alphabet: Pinocchio adds the joints of a link in order of their names, whatever the
# file's order, and needs the one that is mimicked first. `right` that mimics `left` works, `left` that mimics `right` raises,
# so does a joint that mimics one that is a mimic itself, as in many hands. A program that was tried with a Panda
# (`panda_finger_joint2` mimics `...1`) fails with the next gripper.
# Output seen: "default: 2 numbers", "mimic=True, right mimics left: 1 number", "mimic=True, left mimics right: ValueError: The
# parent joint of the mimic joint is not in the kinematic tree", "mimic=True, a chain of mimics: ValueError".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pin==4.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import pinocchio as pin


def gripper(*joints):
    """URDF of sliding fingers on one link; each joint is (its name, the joint that it mimics or None)."""
    links = "".join(f'<link name="{name}_link"/>' for name, _ in joints)
    made = "".join(
        f'<joint name="{name}" type="prismatic"><parent link="palm"/><child link="{name}_link"/><axis xyz="0 1 0"/>'
        '<limit lower="0" upper="0.04" effort="10" velocity="0.2"/>'
        + (f'<mimic joint="{mimicked}"/>' if mimicked else "")
        + "</joint>"
        for name, mimicked in joints
    )
    return f'<robot name="gripper"><link name="palm"/>{links}{made}</robot>'


def numbers(urdf, **options):
    try:
        return pin.buildModelFromXML(urdf, **options).nq
    except ValueError as error:
        return f"ValueError: {str(error).splitlines()[0]}"


right_mimics, left_mimics = gripper(("left", None), ("right", "left")), gripper(("right", None), ("left", "right"))
chain = gripper(("a", None), ("b", "a"), ("c", "b"))
found = {
    "default": numbers(right_mimics),
    "mimic=True, right mimics left": numbers(right_mimics, mimic=True),
    "mimic=True, left mimics right": numbers(left_mimics, mimic=True),
    "mimic=True, a chain of mimics": numbers(chain, mimic=True),
}
for name, value in found.items():
    print(f"{name}: {value}")
assert list(pin.buildModelFromXML(left_mimics).names)[1:] == ["left", "right"], "CHANGED: the order of joints"
assert list(found.values())[:2] == [2, 1], "CHANGED: what is counted"
assert "not in the kinematic tree" in str(found["mimic=True, left mimics right"]), "CHANGED: the names do not matter"
assert "ValueError" in str(found["mimic=True, a chain of mimics"]), "CHANGED: a chain is read"
PY
