"""One model and one scene in a safetensors file, so that every implementation computes the same thing.

The layout is that of the parity goldens: `weights/*` in openpi's names, `in/*` for the scene, sizes in the metadata.
Needs torch and safetensors only: it is read in the peers' environments, where pirl is not installed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import Tensor

TEXT_TOKENS = {"pi0": 20, "pi05": 80, "smolvla": 12}
"""real words of a prompt: an instruction; with pi0.5 the state, written as text, comes on top"""
PADDED_TOKENS = {"pi0": 48, "pi05": 200, "smolvla": 48}
"""what openpi and lerobot pad every prompt to; SmolVLA's a batch of prompts to its longest, at most this"""


@dataclass(frozen=True)
class Case:
    """A file as read back."""

    metadata: dict[str, str]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]

    @classmethod
    def read(cls, path: str) -> Case:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata())
        weights, inputs = (
            {name.removeprefix(part): tensors[name] for name in names if name.startswith(part)}
            for part in ("weights/", "in/")
        )
        return cls(metadata, weights, inputs)

    def sizes(self, part: str) -> dict[str, int]:
        """Nested sizes: vlm, expert or vit."""
        return dict(json.loads(self.metadata[part]))

    @property
    def cameras(self) -> list[Tensor]:
        """Every camera's image."""
        return [self.inputs[name] for name in sorted(self.inputs) if name.startswith("image_")]

    def number(self, name: str) -> int:
        return int(self.metadata[name])


@dataclass(frozen=True)
class Scene:
    """What one chunk is asked for with. Batch 1."""

    images: list[Tensor]
    """[1, 3, h, w] in [-1, 1], one per camera"""
    present: list[bool]
    tokens: Tensor
    """[1, L]"""
    token_mask: Tensor
    """[1, L]"""
    state: Tensor
    noise: Tensor


def scene(case: Case, cameras: int, *, as_robots_have_it: bool) -> Scene:
    """All cameras present and no padding; or `as_robots_have_it`: the last one absent, the prompt padded."""
    family = case.metadata["family"]
    length = PADDED_TOKENS[family] if as_robots_have_it else TEXT_TOKENS[family]
    token_mask = torch.arange(length)[None] < TEXT_TOKENS[family]
    return Scene(
        images=case.cameras[:cameras],
        present=[not as_robots_have_it or camera < cameras - 1 for camera in range(cameras)],
        tokens=case.inputs["tokens"][:, :length] * token_mask,
        token_mask=token_mask,
        state=case.inputs["state"],
        noise=case.inputs["noise"],
    )
