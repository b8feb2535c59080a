"""Exports a checkpoint to openpi's or lerobot's layout: bit-identical to its import where nothing was trained.

An imported checkpoint, and what was fine-tuned from it, carries source.safetensors: names, unused heads and side files
are taken from there. For the other layout, or without it, they are made from the card, and unused heads are zeros.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pirl_server.interchange.checkpoints import lerobot_writer, openpi_writer
from pirl_server.interchange.checkpoints.architectures import Architecture, architecture_of_family, check_stack
from pirl_server.interchange.checkpoints.importer import FILE_KEY
from pirl_server.interchange.checkpoints.source_folder import one_line
from pirl_server.interchange.checkpoints.source_metadata import Stack
from pirl_server.interchange.checkpoints.staging import staged
from pirl_server.interchange.checkpoints.tensor_folder import SINGLE, Layout, TensorFile, write_tensors
from pirl_server.model import families
from pirl_server.policy.checkpoint import CARD, SOURCE, StateDict, load_checkpoint, load_noise_actor
from pirl_server.policy.condition import BETTER
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import PRETRAINED


@dataclass(frozen=True)
class Kept:
    """What an import laid aside."""

    names: list[str]
    """of every tensor that the source had"""
    unused: dict[str, Tensor] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=lambda: {"format": "pt"})


def export_checkpoint(stack: Stack, checkpoint: Path, out: Path) -> list[str]:
    """Write the folder `out`; return what a person should know about it, one line each.

    Raises ValueError for a checkpoint whose inputs the other library can't make or that acts by more than its flow, and
    for what is wrong in it.
    """
    card, weights, _ = load_checkpoint(checkpoint)
    if card.features != PRETRAINED or card.processing is None:
        raise ValueError(f"'{checkpoint}' reads features '{card.features}', which only this server computes")
    architecture = architecture_of_family(card.family)
    check_stack(architecture, stack)
    _check_plain(checkpoint, card)
    _check_fit(checkpoint, card, weights)
    kept = _read_source(checkpoint / SOURCE, stack)
    notes = []
    if card.guidance is not None:
        notes.append(f"end each instruction with '{BETTER}' there: it was trained to act well where its prompt says so")
    if kept is None:
        kept = _made(architecture, stack, card, weights)
        notes.append(
            f"side files and unused heads were made from {checkpoint.name}'s card: it was not imported from {stack}"
        )
    try:
        tensors = dict(_named(architecture, kept, weights))
    except KeyError as error:
        raise ValueError(
            f"'{checkpoint / SOURCE}' is of another model: tensor {error} is in only one of them"
        ) from error
    layouts = {name: Layout(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    with staged(out) as folder:
        write_tensors(folder / SINGLE, layouts, tensors.items(), kept.metadata)
        for name, content in kept.files.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"'{checkpoint / SOURCE}' holds a file {name!r} outside of its folder")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return notes


def _named(architecture: Architecture, kept: Kept, weights: StateDict) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under the name it had: views of ours, or what was laid aside."""
    theirs = architecture.to_theirs(weights)
    names = architecture.sort(kept.names)
    for canonical, name in names.weights.items():
        yield name, theirs[canonical]
    for name in names.text:
        yield name, theirs[architecture.embedding]
    for name in (*names.unused, *names.statistics):
        yield name, kept.unused[name]


def _read_source(path: Path, stack: Stack) -> Kept | None:
    """What was laid aside when the checkpoint came from that layout."""
    if not path.is_file():
        return None
    file = TensorFile(path)
    try:
        if file.metadata["stack"] != stack:
            return None
        names, metadata = json.loads(file.metadata["names"]), json.loads(file.metadata["metadata"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is not of an import: {one_line(error)}") from error
    tensors = {name: file.get(name) for name in file.names()}
    files = {name: value.numpy().tobytes() for name, value in tensors.items() if name.startswith(FILE_KEY)}
    return Kept(
        names,
        {name: value for name, value in tensors.items() if not name.startswith(FILE_KEY)},
        {name.removeprefix(FILE_KEY): content for name, content in files.items()},
        metadata,
    )


def _made(architecture: Architecture, stack: Stack, card: ModelCard, weights: StateDict) -> Kept:
    """Names as the library saves them today, and zeros for the heads that it has and we have not."""
    assert card.processing is not None
    if card.processing.prompt_state_dim:
        raise ValueError(
            f"its prompts have {card.processing.prompt_state_dim} state entries, filled up with zeros (lerobot 0.4),"
            " which neither openpi nor lerobot of today writes: export it to the layout it came from"
        )
    prefix = "model." if stack == "lerobot" else ""
    names = [prefix + name for name in architecture.saved_names(architecture.to_theirs(weights))]
    dtype = weights["expert.layers.0.down_proj.weight"].dtype
    rows = card.model.vocabulary
    widths = {name: card.model.vlm.width if ".vlm." in name else card.model.expert.width for name in names}
    heads = {name: torch.zeros(rows, widths[name], dtype=dtype) for name in architecture.sort(names).unused}
    files = (lerobot_writer if stack == "lerobot" else openpi_writer).side_files(card)
    return Kept(names, heads, files)


def _check_plain(checkpoint: Path, card: ModelCard) -> None:
    """Raise ValueError for what serves differently here than its weights alone would elsewhere."""
    if card.guidance not in (None, 1.0):
        raise ValueError(
            f"'{checkpoint}' has guidance {card.guidance:g}: its chunks are of two branches of the flow, which the"
            f" folder would not say; set guidance to 1 in '{checkpoint / CARD}', evaluate it so, and export that"
        )
    if load_noise_actor(checkpoint) is not None:
        parent = card.lineage.get("parent", "")
        raise ValueError(
            f"'{checkpoint}' has a noise actor (dsrl), which chooses the noise that its chunks start from and which the"
            f" folder would not have; export its parent{' ' + parent if parent else ''}, whose flow it has, or learn"
            " with another method"
        )


def _check_fit(checkpoint: Path, card: ModelCard, weights: StateDict) -> None:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in families.build(card.model).state_dict().items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    wrong = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
    if wrong:
        raise ValueError(f"'{checkpoint}': tensor '{wrong[0]}' does not fit the card's model")
