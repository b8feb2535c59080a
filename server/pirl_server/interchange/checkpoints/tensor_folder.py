"""Tensors of a folder by name, mapped from one safetensors file or from the shards of an index."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pirl_server.interchange.checkpoints.known_folders import check_folder
from pirl_server.interchange.checkpoints.source_folder import one_line, plain_file, read_object

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""what these models are published in; anything else is a file that went through other hands"""


@dataclass(frozen=True)
class Layout:
    """Shape and type of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorFile:
    """One safetensors file: its header is checked when it is opened, a tensor is mapped when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file: Any = safe_open(path, "pt")
            self._file = file
            self.metadata: dict[str, str] = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
            self._raw = {name: (tuple(each.get_shape()), str(each.get_dtype())) for name, each in slices.items()}
        except (OSError, SafetensorError, ValueError, OverflowError) as error:
            raise ValueError(f"'{path}' can't be read: {one_line(error)}") from error

    def names(self) -> list[str]:
        """All tensors of the file."""
        return list(self._raw)

    def layout(self, name: str) -> Layout:
        """Shape and type. Raises ValueError for a type that weights don't have, or an empty tensor."""
        shape, dtype = self._raw[name]
        if dtype not in DTYPES:
            raise ValueError(f"tensor '{name}' is {dtype}; weights are {', '.join(DTYPES)}")
        if 0 in shape:
            raise ValueError(f"tensor '{name}' has shape {list(shape)}: it is empty")
        return Layout(shape, DTYPES[dtype])

    def get(self, name: str) -> torch.Tensor:
        """The tensor, backed by the file. Any shape, as `layouts` says. Raises ValueError when it cannot be read."""
        try:
            tensor: torch.Tensor = self._file.get_tensor(name)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ValueError(f"'{self.path}': tensor '{name}' can't be read: {one_line(error)}") from error
        return tensor


class TensorFolder:
    """All tensors of a checkpoint folder."""

    def __init__(self, files: Mapping[str, TensorFile]) -> None:
        self.files = list({id(file): file for file in files.values()}.values())
        self.layouts = {name: file.layout(name) for name, file in files.items()}
        self._files = files

    @classmethod
    def open(cls, folder: Path) -> TensorFolder:
        """Open the single file or every shard of the index. Raises ValueError that names file and key at fault."""
        check_folder(folder, (SINGLE, INDEX))
        if (folder / INDEX).exists():
            if (folder / SINGLE).exists():
                raise ValueError(f"'{folder}' has both {SINGLE} and {INDEX}: remove one of them")
            return cls(_sharded(folder))
        file = TensorFile(plain_file(folder, SINGLE))
        return cls(dict.fromkeys(file.names(), file))

    def get(self, name: str) -> torch.Tensor:
        """The tensor, backed by its file. Any shape, as `layouts` says."""
        return self._files[name].get(name)


def _sharded(folder: Path) -> dict[str, TensorFile]:
    index = plain_file(folder, INDEX)
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
        raise ValueError(f"'{index}': 'weight_map' must map tensors to file names")
    shards = {shard: TensorFile(plain_file(folder, shard)) for shard in sorted(set(named.values()))}
    homes: dict[str, str] = {}
    for shard, file in shards.items():
        for name in file.names():
            if name in homes:
                raise ValueError(f"tensor '{name}' is in two shards, {homes[name]} and {shard}")
            if named.get(name) != shard:
                raise ValueError(f"tensor '{name}' is in {shard}, {INDEX} says {named.get(name)}")
            homes[name] = shard
    if missing := set(named) - set(homes):
        raise ValueError(f"tensor '{min(missing)}' is in {INDEX} and not in {named[min(missing)]}")
    return {name: shards[shard] for name, shard in homes.items()}


# A safetensors file written tensor by tensor: the largest one is all that must fit into memory.
# Format: 8 bytes length of the header, little-endian; the header, JSON of type, shape and offsets; the numbers.

NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8"}


def write_tensors(
    path: Path,
    layouts: Mapping[str, Layout],
    tensors: Iterable[tuple[str, torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a new file; `tensors` brings every name of `layouts` once, in any order. Any shape."""
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
