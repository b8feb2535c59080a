"""A checkpoint on disk: weights (safetensors) and one JSON model card; its version is the hash of both.

DIR/policy.safetensors   state dict of the model
DIR/critic.safetensors   optional: state dict of the value function that RL trained with it
DIR/card.json            `ModelCard`
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pirl_contract import Contract
from pirl_server.model.config import Pi0Config
from pirl_server.policy.features import FEATURES, STATE_DIM

StateDict = dict[str, torch.Tensor]
WEIGHTS, CRITIC, CARD = "policy.safetensors", "critic.safetensors", "card.json"


@dataclass(frozen=True)
class ModelCard:
    """What the weights do not say and a wrong guess of which would run without an error."""

    name: str
    contract: Contract
    model: Pi0Config
    features: str
    """key of `policy.features.FEATURES`"""
    action_scale: tuple[float, ...]
    """[D] model-space action 1.0 in the units of the contract"""
    execute_horizon: int
    denoise_steps: int
    """K"""
    noise_level: float
    """a of the exploration schedule"""
    instructions: tuple[str, ...]
    task: str
    family: str = "pi0"
    tokenizer: str = "bytes"
    lineage: Mapping[str, str] = field(default_factory=dict)
    """how it was made: parent version, job, command"""

    def to_json(self) -> str:
        """Return canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Parse `to_json`'s text. Raises ValueError that names what is missing, unknown or wrong."""
        try:
            raw: dict[str, Any] = json.loads(text)
            unknown = set(raw) - {entry.name for entry in fields(cls)}
            if unknown:
                raise ValueError(f"unknown key '{min(unknown)}'")
            raw["contract"] = Contract.from_json(json.dumps(raw["contract"]))
            raw["model"] = Pi0Config.from_dict(raw["model"])
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
            }
            card = cls(**values)
            _check(card)
        except KeyError as error:
            raise ValueError(f"not a model card: key {error} is missing") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a model card: {error}") from error
        return card


def _check(card: ModelCard) -> None:
    """Raise ValueError for what would fail at the first chunk, or worse, would not."""
    if card.family != "pi0" or card.tokenizer != "bytes":
        raise ValueError(f"family '{card.family}' with tokenizer '{card.tokenizer}' is not served here")
    if card.features not in FEATURES:
        raise ValueError(f"features '{card.features}' are not known; there are: {', '.join(FEATURES)}")
    if card.model.state_dim != STATE_DIM:
        raise ValueError(f"the model reads {card.model.state_dim} features, '{card.features}' makes {STATE_DIM}")
    if not len(card.action_scale) == card.model.action_dim == card.contract.action_dim:
        raise ValueError(
            f"{len(card.action_scale)} action scales, {card.model.action_dim} model outputs and "
            f"{card.contract.action_dim} actions in the contract must be the same number"
        )
    if not all(0 < scale < math.inf for scale in (*card.action_scale, card.noise_level)):
        raise ValueError(f"action scales {card.action_scale} and noise level {card.noise_level} must be positive")
    if not 1 <= card.execute_horizon <= card.model.horizon:
        raise ValueError(f"execute_horizon {card.execute_horizon} must be 1 to the horizon, {card.model.horizon}")
    if card.denoise_steps < 1 or not card.instructions:
        raise ValueError("at least one denoise step and one instruction are needed")


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
