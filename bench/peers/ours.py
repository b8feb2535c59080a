"""This project's Pi0: prefix once, then the denoiser that the service uses."""

from __future__ import annotations

from typing import Any

import torch
from case import Case, Scene
from serve import serve
from torch import Tensor

from pirl_server.interchange.checkpoints.weight_names import from_openpi
from pirl_server.interchange.parity.golden_sizes import golden_config
from pirl_server.model.pi0.pi0 import Pi0


class OurPi0:
    """`serve.Model`."""

    def __init__(self, case: Case) -> None:
        self.model = Pi0(golden_config(case.metadata, cameras=len(case.cameras))).eval()
        self.model.load_state_dict(from_openpi(case.weights))

    def prepare(self, scene: Scene) -> tuple[Any, ...]:
        images, present = torch.stack(scene.images, dim=1), torch.tensor([scene.present])
        return (images, present, scene.tokens, scene.token_mask), scene.state, scene.noise

    def sample(self, prepared: tuple[Any, ...], steps: int) -> Tensor:
        seen, state, noise = prepared
        return self.model.denoiser(self.model.encode_prefix(*seen), state, steps).sample(noise)


serve(OurPi0)
