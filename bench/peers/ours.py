"""This project's models: prefix once, then the denoiser that the service uses."""

from __future__ import annotations

from typing import Any

import torch
from case import Case, Scene
from serve import serve
from torch import Tensor

from pirl_server.algorithm.flow import euler_chain
from pirl_server.interchange.parity.golden_sizes import golden_config, golden_family
from pirl_server.model import families


class Ours:
    """`serve.Model`."""

    def __init__(self, case: Case) -> None:
        config = golden_config(case.metadata, cameras=len(case.cameras))
        with torch.device("meta"):
            self.model = families.build(config).eval()
        self.model.load_state_dict(golden_family(config.family).weights(case.weights, config), assign=True)
        case.weights.clear()  # joined projections are copies: two of everything would be twice the memory

    def prepare(self, scene: Scene) -> tuple[Any, ...]:
        images, present = torch.stack(scene.images, dim=1), torch.tensor([scene.present])
        return (images, present, scene.tokens, scene.token_mask), scene.state, scene.noise

    def sample(self, prepared: tuple[Any, ...], steps: int) -> Tensor:
        seen, state, noise = prepared
        return euler_chain(self.model.denoiser(self.model.encode_prefix(*seen), state, steps), noise, steps)[:, -1]


serve(Ours)
