"""A checkpoint on disk: weights (safetensors) and one JSON model card; its version is the hash of both.

DIR/policy.safetensors   state dict of the model
DIR/critic.safetensors   optional: state dict of the value function that RL trained with it
DIR/card.json            `ModelCard`
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pirl_server.policy.card import ModelCard

StateDict = dict[str, torch.Tensor]
WEIGHTS, CRITIC, CARD = "policy.safetensors", "critic.safetensors", "card.json"


def save_checkpoint(folder: Path, card: ModelCard, weights: StateDict, critic: StateDict | None = None) -> str:
    """Write a checkpoint into a new or existing folder, over one that was there, and return its version."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    (folder / CRITIC).unlink(missing_ok=True)
    if critic is not None:
        save_file({name: tensor.detach().contiguous() for name, tensor in critic.items()}, folder / CRITIC)
    (folder / CARD).write_text(card.to_json())
    return checkpoint_version(folder)


def load_checkpoint(folder: Path) -> tuple[ModelCard, StateDict, StateDict | None]:
    """Read card, weights and critic (None when there is none). Raises ValueError with the file at fault."""
    if not (folder / CARD).is_file():
        raise ValueError(f"'{folder}' is not a checkpoint: no {CARD} in it")
    try:
        card = ModelCard.from_json((folder / CARD).read_text(errors="replace"))
    except ValueError as error:
        raise ValueError(f"'{folder / CARD}' is {error}") from error
    critic = _read(folder / CRITIC) if (folder / CRITIC).is_file() else None
    return card, _read(folder / WEIGHTS), critic


def checkpoint_version(folder: Path) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 over card, weights and critic."""
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS, CRITIC):
        if (folder / name).is_file():
            digest.update(name.encode())
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:12]


def _read(path: Path) -> StateDict:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"'{path}' can't be read: {error}") from error
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"'{path}': tensor '{name}' holds values that are not finite")
    return weights
