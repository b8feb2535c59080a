"""A safetensors file written tensor by tensor: the largest one is all that must fit into memory.

Format: 8 bytes length of the header, little-endian; the header, JSON of type, shape and offsets; the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from pirl_server.interchange.checkpoints.tensor_folder import Layout

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8"}


def write_tensors(
    path: Path,
    layouts: Mapping[str, Layout],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a new file; `tensors` brings every name of `layouts` once, in any order."""
    header, starts = _header(layouts, metadata or {})
    missing = set(layouts)
    with path.open("xb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name, tensor in tensors:
            assert layouts[name] == Layout(tuple(tensor.shape), tensor.dtype), name
            missing.remove(name)
            file.seek(8 + len(header) + starts[name])
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    assert not missing, missing


def _header(layouts: Mapping[str, Layout], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Header and where each tensor starts. Wide types first: every tensor is then aligned to its own."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    starts, end = {}, 0
    for name in sorted(layouts, key=lambda name: (-layouts[name].dtype.itemsize, name)):
        layout = layouts[name]
        starts[name] = end
        end += layout.dtype.itemsize * torch.Size(layout.shape).numel()
        entries[name] = {"dtype": NAMES[layout.dtype], "shape": layout.shape, "data_offsets": [starts[name], end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), starts
