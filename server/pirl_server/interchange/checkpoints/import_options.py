"""Options of an import: what the checkpoint's folder does not contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from pirl_server.interchange.checkpoints.source_metadata import PromptState, Stack
from pirl_server.policy.processing_spec import PromptFormat


@dataclass(frozen=True)
class Request:
    """One import. None: not said, the folder or the family decides, or the import is rejected."""

    stack: Stack
    source: Path
    out: Path
    tokenizer: str
    """a file, or "bytes\""""
    prompt: PromptFormat | None = None
    prompt_state: PromptState | None = None
    instructions: tuple[str, ...] = ()
    """that the policy knows; a single one is taken for a request without any"""
    delta: tuple[bool, ...] | None = None
    """per action dimension; (): none is relative"""
    contract: Path | None = None
    cameras: Mapping[str, str] = field(default_factory=dict)
    """the model's image input -> camera of the contract"""
    norm_stats: Path | None = None
    asset_id: str | None = None
    horizon: int | None = None
    execute_horizon: int | None = None
    dtype: torch.dtype | None = None
    """None: as in the file"""
    pad: Literal[-1, -3] = -1
