"""A success model that was loaded: from the last observations of episodes to the probability that they succeeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from pirl_server.registry.success_models import HEAD, SuccessCard, SuccessModels
from pirl_server.training.success.backbone import Backbone, Source, content_hash, open_backbone
from pirl_server.training.success.final_frames import Frames
from pirl_server.training.success.fit import Reading
from pirl_server.training.success.head import HeadShape, SuccessHead
from pirl_server.training.success.measures import probability


@dataclass(frozen=True)
class SuccessJudge:
    """Backbone, head and what they read."""

    backbone: Backbone
    head: SuccessHead
    reading: Reading
    temperature: float

    @torch.inference_mode()
    def probabilities(self, frames: Frames) -> NDArray[np.float64]:
        """Return the calibrated probabilities of success [N]."""
        logits = self.head(self.reading.inputs(self.backbone, frames))
        return probability(logits.double().numpy() / self.temperature)


def open_judge(models: SuccessModels, card: SuccessCard) -> SuccessJudge:
    """Load a success model. Raises ValueError for files that were changed or can't be read."""
    folder = models.backbone(card)
    if not folder.is_dir() or content_hash(folder) != card.backbone:
        raise ValueError(f"'{folder}', the backbone of success model '{card.version}', is missing or was changed")
    backbone, _ = open_backbone(Source(card.backbone_source, str(folder)), card.grid)
    head = SuccessHead(HeadShape(**card.head))
    path = models.path(card.version) / HEAD
    try:
        head.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"'{path}' can't be read: {str(error).splitlines()[0]}") from error
    return SuccessJudge(backbone, head.eval(), Reading(card.cameras, card.state, card.instructions), card.temperature)
