#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0 on the CPU: tensors that `safetensors.torch.load_file` or `safe_open(...).get_tensor`
# gave, and the file they came from, written anew in place by another program (`cp`, `rsync --inplace`, an export).
# Expected: `load_file` has read the file; what happens to it later does not matter. With numpy it is so.
# Seen: the tensors are the file's pages. They take the new numbers at once, in the middle of a forward pass, and a model that
# was given them with `load_state_dict(..., assign=True)` changes with them; the version that was hashed at loading is no
# longer what runs. A file that gets shorter ends the process instead. `os.replace` by a neighbouring file is safe, and so is
# `.clone()`.
# Output seen: "load_file: 1.0 -> 2.0", "safe_open: 1.0 -> 2.0", "a model that has them assigned: 1.0 -> 2.0",
# "cloned: 1.0 -> 1.0", "numpy: 1.0 -> 1.0", "load_file, os.replace: 1.0 -> 1.0".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PY'
import os
import sys
from pathlib import Path

import safetensors.numpy
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

path, other = Path(sys.argv[1], "model.safetensors"), Path(sys.argv[1], "other.safetensors")
save_file({"weight": torch.full((4, 4), 2.0)}, other)


def fresh():
    path.unlink(missing_ok=True)
    save_file({"weight": torch.full((4, 4), 1.0)}, path)
    return path


def opened(file):
    with safe_open(file, "pt") as tensors:
        return tensors.get_tensor("weight")


def assigned(file):
    model = torch.nn.Linear(4, 4, bias=False)
    model.load_state_dict(load_file(file), assign=True)
    return model.weight.detach()


def in_place():
    content = other.read_bytes()
    assert len(content) == path.stat().st_size
    with path.open("r+b") as file:
        file.write(content)


ways = {
    "load_file": (lambda file: load_file(file)["weight"], in_place, 2.0),
    "safe_open": (opened, in_place, 2.0),
    "a model that has them assigned": (assigned, in_place, 2.0),
    "cloned": (lambda file: load_file(file)["weight"].clone(), in_place, 1.0),
    "numpy": (lambda file: safetensors.numpy.load_file(file)["weight"], in_place, 1.0),
    "load_file, os.replace": (lambda file: load_file(file)["weight"], lambda: os.replace(other, path), 1.0),
}
for name, (load, write, after) in ways.items():
    weight = load(fresh())
    before = float(weight[0, 0])
    write()
    print(f"{name}: {before} -> {float(weight[0, 0])}")
    assert before == 1.0
    assert float(weight[0, 0]) == after, "CHANGED"
PY
