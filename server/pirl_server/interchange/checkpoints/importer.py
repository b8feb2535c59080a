"""Imports a checkpoint of openpi or lerobot: everything is checked, then written in one step.

What the policy never reads goes to source.safetensors, so that an export gives back every byte: names, unused heads
and the side files. It is no part of the policy's version.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from pirl_server.interchange.checkpoints.card_builder import answered, make_card
from pirl_server.interchange.checkpoints.conversion_plan import Plan, convert, make_plan
from pirl_server.interchange.checkpoints.import_options import Request
from pirl_server.interchange.checkpoints.lerobot_reader import read_lerobot
from pirl_server.interchange.checkpoints.openpi_reader import read_openpi
from pirl_server.interchange.checkpoints.source_metadata import Side
from pirl_server.interchange.checkpoints.staging import staged
from pirl_server.interchange.checkpoints.statistics import Statistics
from pirl_server.interchange.checkpoints.tensor_folder import Layout, TensorFolder, write_tensors
from pirl_server.interchange.checkpoints.tokenizer_file import describe
from pirl_server.policy.checkpoint import CARD, SOURCE, WEIGHTS, check_finite, checkpoint_version, file_sha256
from pirl_server.policy.model_card import ModelCard

FILE_KEY = "file/"
"""prefix of side files in source.safetensors; other tensors there are unused weights"""


def import_checkpoint(request: Request) -> tuple[ModelCard, str]:
    """Write the checkpoint folder `request.out`; return its card and version.

    Raises ValueError in one line for anything that is missing, unknown, contradictory or damaged; nothing is written.
    """
    tensors = TensorFolder.open(request.source)
    side = answered(request, _read_side(request, tensors))
    plan = make_plan(tensors, side, request.dtype)
    tokenizer, tokenizer_name = describe(request.tokenizer, plan.config.vocabulary)
    card = make_card(request, side, plan.config, tokenizer, _lineage(request, tensors))
    text = card.to_json()
    ModelCard.from_json(text)
    with staged(request.out) as folder:
        write_tensors(folder / WEIGHTS, plan.layouts, convert(tensors, plan))
        _write_source(folder / SOURCE, tensors, plan, side)
        if tokenizer_name:
            shutil.copyfile(request.tokenizer, folder / tokenizer_name)
        (folder / CARD).write_text(text)
        version = checkpoint_version(folder)
    return card, version


def _read_side(request: Request, tensors: TensorFolder) -> Side:
    if request.stack == "openpi":
        return read_openpi(request.source, request.asset_id)
    return read_lerobot(request.source, _buffers(tensors))


def _buffers(tensors: TensorFolder) -> dict[str, Statistics]:
    """Statistics that lerobot before 0.4 kept among the weights; those of its base model are infinite: none."""
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    places = {
        "observation.state": "normalize_inputs.buffer_observation_state.",
        "action": "unnormalize_outputs.buffer_action.",
    }
    for feature, place in places.items():
        for name in tensors.layouts:
            if name.startswith(place) and torch.isfinite(values := tensors.get(name)).all():
                found.setdefault(feature, {})[name.removeprefix(place)] = tuple(map(float, values.reshape(-1)))
    return dict(found)


def _lineage(request: Request, tensors: TensorFolder) -> dict[str, str]:
    """Where it came from; the hubs list the same hash beside each file."""
    hashes = {f"sha256 {file.path.name}": file_sha256(file.path) for file in tensors.files}
    return {"method": f"import {request.stack}"} | hashes


def _write_source(path: Path, tensors: TensorFolder, plan: Plan, side: Side) -> None:
    files = {
        FILE_KEY + name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in side.files.items()
    }
    kept = (*plan.names.unused, *plan.names.statistics)
    layouts = {name: tensors.layouts[name] for name in kept}
    layouts |= {name: Layout(tuple(file.shape), file.dtype) for name, file in files.items()}

    def load() -> Iterator[tuple[str, torch.Tensor]]:
        yield from files.items()
        for name in kept:
            if name in plan.names.unused:
                check_finite(name, tensors.get(name))
            yield name, tensors.get(name)

    metadata = {
        "stack": side.stack,
        "names": json.dumps(sorted(tensors.layouts)),
        "metadata": json.dumps(tensors.files[0].metadata, sort_keys=True),
    }
    write_tensors(path, layouts, load(), metadata)
