"""Renames state dicts of pi0 from other programs and older versions to openpi's current names.

Renames only, and one copy for a tied embedding. Keys that are not known keep their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pirl_server.interchange.checkpoints.weight_names import TEXT, Weights

PALIGEMMA = "paligemma_with_expert.paligemma."
HEAD, EMBEDDING = PALIGEMMA + "lm_head.weight", TEXT + "embed_tokens.weight"
OLD_NESTING = (
    (PALIGEMMA + "language_model.lm_head.", PALIGEMMA + "lm_head."),
    (PALIGEMMA + "language_model.model.", PALIGEMMA + "model.language_model."),
    (PALIGEMMA + "vision_tower.", PALIGEMMA + "model.vision_tower."),
    (PALIGEMMA + "multi_modal_projector.", PALIGEMMA + "model.multi_modal_projector."),
)
TRANSFORMERS = (
    ("model.vlm.vision_tower.vision_model.", PALIGEMMA + "model.vision_tower.vision_model."),
    ("model.vlm.vision_tower.", PALIGEMMA + "model.vision_tower.vision_model."),  # of newer versions
    ("model.vlm.", PALIGEMMA + "model."),
    ("model.dit.", "paligemma_with_expert.gemma_expert.model."),
    ("embed_action_time.", ""),
)


def without_model(weights: Mapping[str, Tensor]) -> Weights:
    """lerobot's names to openpi's: one leading "model." less, where every key has it.

    Tensors of any shape pass untouched.
    """
    if not all(key.startswith("model.") for key in weights):
        return dict(weights)
    return {key.removeprefix("model."): value for key, value in weights.items()}


def from_old_nesting(weights: Mapping[str, Tensor]) -> Weights:
    """Names of files written with transformers before 4.52, which nested PaliGemma the other way round.

    Tensors of any shape pass untouched.
    """
    return {_replaced(key, OLD_NESTING): value for key, value in weights.items()}


def from_transformers(weights: Mapping[str, Tensor]) -> Weights:
    """Names of transformers' own PI0 (5.5 and later) to openpi's. Tensors of any shape pass untouched."""
    return {_replaced(key, TRANSFORMERS): value for key, value in weights.items()}


def tied_embedding(weights: Mapping[str, Tensor]) -> Weights:
    """With the token embedding under its own name: it is tied to the language head, and files often keep one of them.

    Raises ValueError when a file holds both and they differ: then programs disagree on which of them counts. Tensors of
    any shape pass untouched.
    """
    tied = dict(weights)
    if HEAD in tied and EMBEDDING in tied and not torch.equal(tied[HEAD], tied[EMBEDDING]):
        raise ValueError(f"'{HEAD}' and '{EMBEDDING}' are tied but differ: keep the one the model was trained with")
    if HEAD in tied:
        tied.setdefault(EMBEDDING, tied[HEAD])
    return tied


def to_openpi_names(weights: Mapping[str, Tensor]) -> Weights:
    """Any of the layouts above to openpi's names of today, ready for `weight_names.from_openpi`.

    Tensors of any shape pass untouched.
    """
    return tied_embedding(from_old_nesting(from_transformers(without_model(weights))))


def _replaced(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for theirs, ours in renames:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
