"""Conversion of each tensor: checked by name, shape and type before a byte is written, then copied group by group.

A group is a layer or a single tensor: what is stacked into one of our tensors always lies within one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pirl_server.interchange.checkpoints.architectures import (
    Architecture,
    architecture_of_names,
    check_stack,
)
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.tensor_folder import Layout, TensorFolder
from pirl_server.interchange.checkpoints.tensor_names import Names
from pirl_server.interchange.checkpoints.weight_names import JOINED
from pirl_server.model import families
from pirl_server.model.flow_model import FlowModelConfig
from pirl_server.policy.checkpoint import CHUNK_ELEMENTS, check_finite

LAYER = re.compile(r".*\.layers\.\d+\.")


@dataclass(frozen=True)
class Plan:
    """Sizes, and where every tensor of the model comes from."""

    architecture: Architecture
    config: FlowModelConfig
    names: Names
    sources: dict[str, str]
    """canonical name -> name in the file, the text embedding included"""
    layouts: dict[str, Layout]
    """our tensors, as they will be written"""


def make_plan(folder: TensorFolder, side: Side, dtype: torch.dtype | None) -> Plan:
    """Compare every tensor with the model. Raises ValueError that names the first one at fault."""
    architecture = architecture_of_names(folder.layouts)
    check_stack(architecture, side.stack)
    names = architecture.sort(folder.layouts)
    _check_text(folder, names.text)
    sources = names.weights | dict(zip((architecture.embedding,), names.text))
    layouts = {name: folder.layouts[source] for name, source in sources.items()}
    config = architecture.sizes(layouts, side)
    expected = expected_shapes(architecture, config)
    unknown = sorted(sources[name] for name in set(layouts) - set(expected))
    for name in sorted(expected):
        if name not in layouts:
            raise ValueError(f"tensor '{name}' is missing" + (f"; '{unknown[0]}' is not known" if unknown else ""))
        if layouts[name].shape != expected[name]:
            found = list(layouts[name].shape)
            raise ValueError(f"tensor '{sources[name]}' has shape {found}, the model's is {list(expected[name])}")
    if unknown:
        raise ValueError(f"tensor '{unknown[0]}' does not fit a {config.family} of {config.depth} layers")
    converted = _converted(architecture, config, sources, layouts, dtype)
    return Plan(architecture, config, names, sources, converted)


def convert(folder: TensorFolder, plan: Plan) -> Iterator[tuple[str, Tensor]]:
    """Our tensors, one group in memory at a time. Raises ValueError for a value that is not finite.

    Tensors of any shape, as the model's state dict has them.
    """
    for group in groups(plan.sources):
        loaded = {}
        for name in group:
            loaded[name] = folder.get(plan.sources[name])
            check_finite(plan.sources[name], loaded[name])
        for ours, tensor in plan.architecture.to_ours(loaded, plan.config).items():
            yield ours, _cast(ours, tensor, plan.layouts[ours].dtype)


def groups(names: dict[str, str]) -> list[list[str]]:
    """Names of one layer together, all others alone."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        match = LAYER.match(name)
        found.setdefault(match[0] if match else name, []).append(name)
    return list(found.values())


def expected_shapes(architecture: Architecture, config: FlowModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape by canonical name of all weights of such a model."""
    with torch.device("meta"):
        theirs = architecture.to_theirs(families.build(config).state_dict())
    return {name: tuple(tensor.shape) for name, tensor in theirs.items()}


def _converted(
    architecture: Architecture,
    config: FlowModelConfig,
    sources: dict[str, str],
    layouts: dict[str, Layout],
    dtype: torch.dtype | None,
) -> dict[str, Layout]:
    converted: dict[str, Layout] = {}
    for group in groups(sources):
        blank = {name: torch.empty(layouts[name].shape, dtype=layouts[name].dtype, device="meta") for name in group}
        for first, name in _sisters([name for name in group if architecture.joined(name, config)]):
            if dtype is None and layouts[first].dtype != layouts[name].dtype:
                raise ValueError(f"'{sources[first]}' and '{sources[name]}' differ in type: choose one by --dtype")
        for ours, tensor in architecture.to_ours(blank, config).items():
            converted[ours] = Layout(tuple(tensor.shape), dtype or tensor.dtype)
    return converted


def _sisters(group: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of projections that become one tensor."""
    for first, *others in JOINED.values():
        for name in group:
            if f".{first}." in name:
                yield from ((name, name.replace(f".{first}.", f".{other}.")) for other in others)


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.to(dtype)
    if cast.dtype != tensor.dtype:
        check_finite(name, cast)
    return cast


def _check_text(folder: TensorFolder, names: tuple[str, ...]) -> None:
    """The embedding under both of its names must be one."""
    if len(names) < 2:
        return
    one, other = (folder.get(name).reshape(-1) for name in names)
    same = folder.layouts[names[0]] == folder.layouts[names[1]]
    pairs = zip(torch.split(one, CHUNK_ELEMENTS), torch.split(other, CHUNK_ELEMENTS))
    if not same or not all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs):
        raise ValueError(f"tensors '{names[0]}' and '{names[1]}' must be the same embedding, but differ")
