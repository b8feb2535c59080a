#!/usr/bin/env bash
# safetensors 0.8.0 (and 0.7.0), safetensors.numpy.save_file: an array that is a transposed view, as CHW images made of HWC
# ones are, or every second column.
# Expected: what is read back equals what was saved, or an error that the array is not contiguous, as safetensors.torch
# gives. Version 0.7.0 wrote the right values.
# Seen: 0.8.0 writes the bytes of the buffer below the view, in the buffer's order, under the view's shape: numbers in wrong
# places, no error, no warning. A file that 0.7.0 wrote right is written wrong by the same program after an upgrade.
# `np.ascontiguousarray` around each array is right with both.
# Output seen: "safetensors 0.7.0: transposed right, every second column right, np.ascontiguousarray right" and
# "safetensors 0.8.0: transposed WRONG, every second column WRONG, np.ascontiguousarray right"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/layout.py" <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

path, expected = sys.argv[1:]
image_HWC = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
cases = {
    "transposed": image_HWC.transpose(2, 0, 1),
    "every second column": image_HWC[:, ::2],
    "np.ascontiguousarray": np.ascontiguousarray(image_HWC.transpose(2, 0, 1)),
}
right = {}
for name, array in cases.items():
    save_file({"x": array}, path)
    found = load_file(path)["x"]
    assert found.shape == array.shape, "the shape is right in each case"
    right[name] = np.array_equal(found, array)
print(f"safetensors {safetensors.__version__}: " + ", ".join(f"{n} {'right' if r else 'WRONG'}" for n, r in right.items()))
assert right["np.ascontiguousarray"]
assert {right["transposed"], right["every second column"]} == {expected == "right"}, "CHANGED"
PY
python3 -m venv "$folder/venv"
for pair in 0.7.0:right 0.8.0:wrong; do
    "$folder/venv/bin/pip" install -q "safetensors==${pair%%:*}" numpy==2.4.6
    "$folder/venv/bin/python" "$folder/layout.py" "$folder/x.safetensors" "${pair##*:}"
done
