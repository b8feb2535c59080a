"""Recognises folders that are given by mistake, and says what to give instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
DEPTH = 4
"""folders below the given one that are searched for a checkpoint"""
MOST_FOLDERS = 1000
"""of them: a home directory is no checkpoint"""


def check_folder(folder: Path, weights: Sequence[str]) -> None:
    """Raise ValueError that names what the folder is, unless one of the files of weights lies in it and no adapter."""
    if not folder.is_dir():
        raise ValueError(f"'{folder}' {_instead_of_a_folder(folder)}")
    if adapter := _first(folder, ADAPTER):
        raise ValueError(
            f"'{folder}' is an adapter (PEFT, LoRA): {adapter} changes the weights of another checkpoint; merge it into"
            " that one first (peft: merge_and_unload), save the whole policy and import that"
        )
    if _first(folder, weights):
        return
    for kind in KINDS:
        if said := kind(folder, weights):
            raise ValueError(f"'{folder}' {said}")
    raise ValueError(f"'{folder / weights[0]}' is missing, and so is {' and '.join(weights[1:])}: no checkpoint there")


def _instead_of_a_folder(path: Path) -> str:
    if path.is_file():
        return f"is a file: give the folder that holds it, '{path.parent}'"
    if len(path.parts) == 2 and not path.is_absolute():
        return "is not a folder on this machine: if it is the name of a checkpoint on a hub, download that first"
    return "is not a folder"


def _own(folder: Path, weights: Sequence[str]) -> str:
    return "is a checkpoint of pirl already: serve it with pirl serve" if (folder / "card.json").is_file() else ""


def _jax(folder: Path, weights: Sequence[str]) -> str:
    if any((folder / name).exists() for name in ("params/_METADATA", "_METADATA", "manifest.ocdbt", "params")):
        return "is a JAX checkpoint of openpi: convert it with openpi's convert_jax_model_to_pytorch.py first"
    return ""


def _sharded(folder: Path, weights: Sequence[str]) -> str:
    if shards := sorted(folder.glob("model-*-of-*.safetensors")):
        return f"has {shards[0].name} and no {weights[-1]}: the index that lists the shards is missing"
    if parts := sorted(folder.glob("*.distcp")):
        return f"is a distributed checkpoint ({parts[0].name}): gather it into one state dict, saved as {weights[0]}"
    return ""


def _dataset(folder: Path, weights: Sequence[str]) -> str:
    return "is a data set of lerobot, not a policy" if (folder / "meta" / "info.json").is_file() else ""


def _training_state(folder: Path, weights: Sequence[str]) -> str:
    if state := _first(folder, ("optimizer_state.safetensors", "training_step.json")):
        return f"is a training state ({state}): the policy lies beside it, in pretrained_model"
    return ""


def _above(folder: Path, weights: Sequence[str]) -> str:
    for level in _levels(folder)[1:]:
        if found := [f"'{each}'" for each in level if _first(each, (*weights, *ADAPTER))]:
            return f"is the folder above: give {' or '.join(found[:5])}, where the weights lie"
    return ""


def _pickled(folder: Path, weights: Sequence[str]) -> str:
    below = (each for level in _levels(folder) for each in level)
    found = next((path for each in below for path in sorted(each.iterdir()) if path.suffix in PICKLES), None)
    if found is None:
        return ""
    return (
        f"has its weights as '{found.relative_to(folder)}', a pickle of torch, which runs code when it is opened:"
        f" convert it where it was trained, with safetensors.torch.save_file, to {weights[0]}"
    )


def _other_safetensors(folder: Path, weights: Sequence[str]) -> str:
    found = sorted(folder.glob("*.safetensors"))
    return f"has {found[0].name} where {weights[0]} is expected: rename it if it holds the policy" if found else ""


KINDS: tuple[Callable[[Path, Sequence[str]], str], ...] = (
    _own, _sharded, _training_state, _above, _jax, _dataset, _pickled, _other_safetensors,
)  # fmt: skip
"""the first that recognises a folder says what it is; the more certain come first"""


def _first(folder: Path, names: Sequence[str]) -> str:
    return next((name for name in names if (folder / name).exists() or (folder / name).is_symlink()), "")


def _levels(folder: Path) -> list[list[Path]]:
    """The folder and those below it, the nearest first; links to folders are not followed."""
    levels = [[folder]]
    while len(levels) <= DEPTH and sum(map(len, levels)) < MOST_FOLDERS:
        children = (child for each in levels[-1] for child in sorted(each.iterdir()))
        levels.append([child for child in children if child.is_dir() and not child.is_symlink()])
    return levels
