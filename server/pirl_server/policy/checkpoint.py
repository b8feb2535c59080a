"""A checkpoint on disk: weights (safetensors) and one JSON model card; its version is the hash of both.

DIR/policy.safetensors   state dict of the model, one file whatever its size
DIR/critic.safetensors   optional: state dict of the value function that RL trained with it
DIR/noise_net.safetensors optional: state dict of Flow-Noise's net, which training explores with and no robot is served
DIR/noise_actor.safetensors optional: state dict of the net that chooses the noise which a served chunk starts from
DIR/card.json            `ModelCard`
DIR/tokenizer.model      or tokenizer.json, when the card's tokenizer is a file; part of the version
DIR/source.safetensors   what an imported checkpoint held and the policy never reads, for export; no part of it

Weights are mapped, not read: they cost memory when they are used, and the largest file needs no copy of itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pirl_server.policy.model_card import ModelCard

StateDict = dict[str, torch.Tensor]
WEIGHTS, CRITIC, CARD, SOURCE = "policy.safetensors", "critic.safetensors", "card.json", "source.safetensors"
NOISE_NET, NOISE_ACTOR = "noise_net.safetensors", "noise_actor.safetensors"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
CHUNK_BYTES = 1 << 24
CHUNK_ELEMENTS = 1 << 22
"""of a tensor looked at in one go: bounds what checking the largest tensor takes"""


def save_checkpoint(
    folder: Path,
    card: ModelCard,
    weights: StateDict,
    critic: StateDict | None = None,
    parent: Path | None = None,
    noise_net: StateDict | None = None,
    noise_actor: StateDict | None = None,
) -> str:
    """Write a checkpoint into a new or existing folder, over one that was there, and return its version.

    `parent` is the folder it was trained from: tokenizer and source are copied from it. Raises ValueError when the
    card's tokenizer is a file and the parent lacks it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if parent is None or parent.resolve() != folder.resolve():
        _copy_companions(parent, folder)
    _write(folder / WEIGHTS, weights)
    for name, part in ((CRITIC, critic), (NOISE_NET, noise_net), (NOISE_ACTOR, noise_actor)):
        (folder / name).unlink(missing_ok=True)
        if part is not None:
            _write(folder / name, part)
    (folder / CARD).write_text(card.to_json())
    check_tokenizer(folder, card)
    return checkpoint_version(folder)


def load_checkpoint(folder: Path) -> tuple[ModelCard, StateDict, StateDict | None]:
    """Read card, weights and critic (None when there is none). Raises ValueError with the file at fault."""
    card = load_card(folder)
    critic = _read(folder / CRITIC) if (folder / CRITIC).is_file() else None
    return card, _read(folder / WEIGHTS), critic


def load_noise_net(folder: Path) -> StateDict | None:
    """Weights of Flow-Noise's net, None when the checkpoint was not trained with one."""
    return _read(folder / NOISE_NET) if (folder / NOISE_NET).is_file() else None


def load_noise_actor(folder: Path) -> StateDict | None:
    """Weights of the net that chooses the initial noise, None when the checkpoint starts from plain noise."""
    return _read(folder / NOISE_ACTOR) if (folder / NOISE_ACTOR).is_file() else None


def load_card(folder: Path) -> ModelCard:
    """Read the card alone. Raises ValueError when there is none, or for what is wrong in it."""
    if not (folder / CARD).is_file():
        raise ValueError(f"'{folder}' is not a checkpoint: no {CARD} in it")
    try:
        card = ModelCard.from_json((folder / CARD).read_text(errors="replace"))
    except ValueError as error:
        raise ValueError(f"'{folder / CARD}' is {error}") from error
    check_tokenizer(folder, card)
    return card


def checkpoint_version(folder: Path) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 over card, weights, critic, noise nets and tokenizer."""
    digest = hashlib.sha256()
    for name in (CARD, WEIGHTS, CRITIC, NOISE_NET, NOISE_ACTOR, *TOKENIZERS):
        if (folder / name).is_file():
            digest.update(name.encode())
            for chunk in file_chunks(folder / name):
                digest.update(chunk)
    return digest.hexdigest()[:12]


def file_chunks(path: Path) -> Iterator[bytes]:
    """A file's content, a few megabytes at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content in hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in file_chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def tokenizer_file(folder: Path) -> Path | None:
    """The tokenizer that lies in a checkpoint folder."""
    return next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)


def check_tokenizer(folder: Path, card: ModelCard) -> None:
    """Raise ValueError unless the card's tokenizer is bytes or the very file that lies in the folder."""
    wanted = card.processing.tokenizer if card.processing is not None else None
    if wanted is None or wanted.kind == "bytes":
        return
    found = tokenizer_file(folder)
    if found is None:
        raise ValueError(f"'{folder}': the card needs a tokenizer file: no {' or '.join(TOKENIZERS)}")
    if file_sha256(found) != wanted.sha256:
        raise ValueError(f"'{found}' is not the tokenizer of the card: its SHA-256 must be {wanted.sha256[:12]}...")


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError for a tensor that is no floating point number or holds one that is not finite. Any shape."""
    if not tensor.is_floating_point():
        raise ValueError(f"tensor '{name}' is {tensor.dtype}, weights must be floating point")
    for chunk in torch.split(tensor.reshape(-1), CHUNK_ELEMENTS):
        if not torch.isfinite(chunk).all():
            raise ValueError(f"tensor '{name}' holds values that are not finite")


def _copy_companions(parent: Path | None, folder: Path) -> None:
    """What lay there before goes, what the parent has comes."""
    for name in (*TOKENIZERS, SOURCE):
        (folder / name).unlink(missing_ok=True)
        if parent is not None and (parent / name).is_file():
            shutil.copyfile(parent / name, folder / name)


def _write(path: Path, tensors: StateDict) -> None:
    """Through a neighbour: a policy that was loaded from the file that lay there still reads its old content."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, staged)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _read(path: Path) -> StateDict:
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"'{path}' can't be read: {error}") from error
    for name, tensor in weights.items():
        try:
            check_finite(name, tensor)
        except ValueError as error:
            raise ValueError(f"'{path}': {error}") from error
    return weights
