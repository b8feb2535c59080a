#!/usr/bin/env bash
# lerobot 0.6.1, LeRobotDataset: a feature whose name has "image" in it and that is no image, here a bool "image_is_fresh";
# and a key of one's own in meta/info.json.
# Expected: the feature is stored as the bool it is declared as; the key, which loading ignores with a warning, stays.
# Seen: the first episode is saved. The second raises ValueError from aggregate_stats ("Shape of quantile 'min' must be
# (3,1,1) or (1,1,1) but is (1,) instead"), with its frames already in the data file: every feature with "image" in its
# name is taken for pixels there. And `resume`, then saving an episode, removes the key from info.json for good.
# Output seen: "second episode: ValueError: Shape of quantile 'min' must be (3,1,1) or (1,1,1) but is (1,) instead."
# and "info.json after an append: ours=False"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'lerobot[dataset]==0.6.1'
export HF_HUB_OFFLINE=1 HF_HOME="$folder/hub"
"$folder/venv/bin/python" - "$folder" <<'PY'
import json
import sys
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

folder = Path(sys.argv[1])


def record(found, name):
    for number in range(3):
        found.add_frame({"action": np.array([number], np.float32), name: np.array([True]), "task": "wipe"})
    found.save_episode()


def create(root, name):
    features = {"action": {"dtype": "float32", "shape": (1,), "names": ["x"]},
                name: {"dtype": "bool", "shape": (1,), "names": None}}
    return LeRobotDataset.create("local/none", 10, features, root=root, use_videos=False)


found, said = create(folder / "first", "image_is_fresh"), ""
record(found, "image_is_fresh")
try:
    record(found, "image_is_fresh")
except ValueError as error:
    said = str(error)
print(f"second episode: ValueError: {said}")
assert "Shape of quantile" in said, "CHANGED: the feature is stored as what it is"

found = create(folder / "second", "is_fresh")
record(found, "is_fresh")
found.finalize()
path = folder / "second" / "meta" / "info.json"
path.write_text(json.dumps(json.loads(path.read_text()) | {"ours": 1}))
found = LeRobotDataset.resume("local/none", root=folder / "second")
record(found, "is_fresh")
found.finalize()
print(f"info.json after an append: ours={'ours' in json.loads(path.read_text())}")
assert "ours" not in json.loads(path.read_text()), "CHANGED: the key stays"
PY
