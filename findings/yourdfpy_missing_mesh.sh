#!/usr/bin/env bash
# yourdfpy 0.0.60, a URDF whose collision mesh cannot be found, as `package://` names cannot where the package is not installed.
# Expected: `URDF.load` raises, for the mesh was asked for.
# Seen: a line in the log, and a model without that shape. `validate()` is True, `errors` is empty, and the scene has only the
# shapes that were found: a collision check passes through the link. Before a scene is used, its geometries have to be counted
# against the file's <collision> elements.
# Output seen: "2 <collision> elements, 1 shape in collision_scene, validate() True, errors []".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q yourdfpy==0.0.60 numpy==2.4.6
cat >"$folder/arm.urdf" <<'XML'
<robot name="arm">
  <link name="base"><collision><geometry><box size="0.1 0.1 0.1"/></geometry></collision></link>
  <link name="forearm"><collision><geometry><mesh filename="package://arm/forearm.stl"/></geometry></collision></link>
  <joint name="elbow" type="revolute">
    <parent link="base"/><child link="forearm"/><axis xyz="0 0 1"/>
    <limit lower="-1" upper="1" effort="10" velocity="1"/>
  </joint>
</robot>
XML
"$folder/venv/bin/python" - "$folder/arm.urdf" 2>/dev/null <<'PY'
import sys
from pathlib import Path

import yourdfpy

path = sys.argv[1]
elements = Path(path).read_text().count("<collision>")
robot = yourdfpy.URDF.load(path, build_collision_scene_graph=True, load_collision_meshes=True)
shapes, valid = len(robot.collision_scene.geometry), robot.validate()
print(
    f"{elements} <collision> elements, {shapes} shape in collision_scene, validate() {valid}, errors {list(robot.errors)}"
)
assert elements == 2
assert (shapes, valid, list(robot.errors)) == (1, True, []), "CHANGED: a mesh that is missing is told"
PY
