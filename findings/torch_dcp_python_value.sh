#!/usr/bin/env bash
# torch 2.13.0, torch.distributed.checkpoint with HuggingFaceStorageWriter, the writer of safetensors: a state dict that has,
# beside float weights, what a training has to go on from: a step as a Python int, or a tensor of integers.
# Expected: the int is stored, as the plain writer does, or `save` raises; integer tensors are stored.
# Seen: with a Python value `save` returns without an error, and the file that is called .safetensors is a pickle of the
# value. The weights are in no file: nothing can read the checkpoint any more. With `enable_consolidation=True` a Python value
# ends in a MemoryError instead, and a tensor of integers or bools, which is stored well without consolidation, in a TypeError
# on torch.finfo, each after the shards were written.
# Output seen: "step as int: saved; 1 file, 0 of them safetensors; load: fails", "steps as int64 tensor: saved; ... load: equal",
# "steps as int64 tensor, consolidated: TypeError: torch.finfo() requires a floating point input type. ...",
# "weights alone, consolidated: saved; 1 file, 1 of them safetensors; load: equal".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 safetensors==0.8.0 numpy==2.4.6
cat >"$folder/save.py" <<'PY'
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter

warnings.simplefilter("ignore")
weights = torch.arange(6.0).reshape(2, 3)


def readable(path):
    try:
        return load_file(path)
    except SafetensorError:
        return None


def said(error):
    return str(error).strip().splitlines()[-1]


def go(name, state, **options):
    folder = Path(sys.argv[1]) / name.replace(" ", "-")
    try:
        dcp.save(state, storage_writer=HuggingFaceStorageWriter(path=str(folder), save_distributed=True, **options))
    except dcp.CheckpointException as error:
        return said(error)
    files = [readable(path) for path in folder.glob("*.safetensors")]
    back = {"weights": torch.zeros(2, 3)}
    try:
        dcp.load(back, storage_reader=HuggingFaceStorageReader(str(folder)))
        loaded = "equal" if back["weights"].equal(weights) else "other values"
    except dcp.CheckpointException:
        loaded = "fails"
    whole = sum(file is not None for file in files)
    return f"saved; {len(files)} file, {whole} of them safetensors; load: {loaded}"


steps = torch.tensor([7, 8])
found = {
    "step as int": go("int", {"weights": weights, "step": 7}),
    "steps as int64 tensor": go("tensor", {"weights": weights, "steps": steps}),
    "steps as int64 tensor, consolidated": go("both", {"weights": weights, "steps": steps}, enable_consolidation=True),
    "weights alone, consolidated": go("alone", {"weights": weights}, enable_consolidation=True),
}
for name, text in found.items():
    print(f"{name}: {text}")
assert found["step as int"] == "saved; 1 file, 0 of them safetensors; load: fails", "CHANGED: a Python value"
assert "torch.finfo() requires" in found["steps as int64 tensor, consolidated"], "CHANGED: integers are consolidated"
for name in ("steps as int64 tensor", "weights alone, consolidated"):
    assert found[name] == "saved; 1 file, 1 of them safetensors; load: equal", name
PY
"$folder/venv/bin/python" "$folder/save.py" "$folder" 2>/dev/null
