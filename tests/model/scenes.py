"""Random models and batches for the tests: unequal everywhere, because equal sizes hide mistakes."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from typing import Any

import reference_pi0
import reference_smolvla
import torch
from reference_pi0 import Row
from torch import Tensor

from pirl_server.interchange.checkpoints import smolvla_names, weight_names
from pirl_server.model import families
from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.smolvla.config import SmolVlaConfig

FAMILIES = ("pi0", "pi05", "smolvla")
Config = Pi0Config | SmolVlaConfig


@dataclass(frozen=True)
class Batch:
    images: Tensor
    image_mask: Tensor
    tokens: Tensor
    token_mask: Tensor
    state: Tensor
    x: Tensor
    t: Tensor

    def prefix(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of `FlowModel.encode_prefix`."""
        return self.images, self.image_mask, self.tokens, self.token_mask

    def float(self) -> Batch:
        """The same in single precision."""
        return self._with(torch.float32)

    def double(self) -> Batch:
        """The same in double precision."""
        return self._with(torch.float64)

    def rounded(self, dtype: torch.dtype) -> Batch:
        """In double precision, with numbers that fit into `dtype`."""
        return self._with(dtype).double()

    def _with(self, dtype: torch.dtype) -> Batch:
        return replace(self, **{k: v.to(dtype) for k, v in vars(self).items() if v.is_floating_point()})


def draw_config(seed: int, family: str) -> Config:
    """Sizes that no preset has."""
    if family == "smolvla":
        return draw_smolvla(seed)
    draw = random.Random(seed)
    kv_heads, vision_heads = draw.choice([1, 1, 2, 3]), draw.choice([1, 2, 3])
    return Pi0Config(
        vision=VisionConfig(
            image_px=(patch := draw.choice([4, 7])) * draw.choice([2, 3]),
            patch_px=patch,
            width=vision_heads * draw.choice([5, 8]),
            depth=draw.choice([1, 2]),
            heads=vision_heads,
            mlp_dim=draw.choice([9, 20]),
        ),
        vlm=TowerConfig(draw.choice([11, 24]), draw.choice([13, 40])),
        expert=TowerConfig(draw.choice([10, 18]), draw.choice([17, 30])),
        depth=draw.choice([1, 2, 3]),
        heads=kv_heads * draw.choice([1, 2, 4]),
        kv_heads=kv_heads,
        head_dim=draw.choice([2, 6, 10]),
        vocabulary=31,
        max_tokens=12,
        state_dim=draw.choice([1, 5]),
        action_dim=draw.choice([3, 5]),
        horizon=draw.choice([1, 2, 5]),
        family=family,
    )


def draw_smolvla(seed: int) -> SmolVlaConfig:
    """Two layers at least, so that both kinds of attention are there; sizes of pi0's draw otherwise."""
    draw = random.Random(seed)
    values = asdict(draw_config(seed, "pi0")) | {"family": "smolvla", "depth": draw.choice([2, 3, 5])}
    shuffle = draw.choice([1, 2, 3])
    vision = values["vision"]
    vision |= {"image_px": vision["patch_px"] * shuffle * draw.choice([1, 2])}
    every = draw.choice([2, 2, 3])
    return SmolVlaConfig.from_dict({**values, "pixel_shuffle": shuffle, "self_attention_every": every})


def draw_model(config: Config, seed: int, dtype: torch.dtype = torch.float64) -> Any:
    """Every weight matters: norms, biases and modulations are random too."""
    generator = torch.Generator().manual_seed(seed)
    model = families.build(config).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model


def draw_batch(config: Config, seed: int, batch: int, cameras: int) -> Batch:
    """A batch whose rows differ in cameras and words; camera 0 is absent in some rows, all but one in others."""
    assert config.vision is not None
    draw, make = random.Random(seed), torch.Generator().manual_seed(seed)
    image_mask = torch.rand(batch, cameras, generator=make) < 0.6
    image_mask[0, 0], image_mask[-1] = False, torch.arange(cameras) == cameras - 1
    words = torch.tensor([draw.randint(1, config.max_tokens) for _ in range(batch)])
    px = config.vision.image_px
    options = {"generator": make, "dtype": torch.float64}
    return Batch(
        images=torch.rand(batch, cameras, 3, px, px, **options) * 2 - 1,
        image_mask=image_mask,
        tokens=torch.randint(config.vocabulary, (batch, config.max_tokens), generator=make),
        token_mask=torch.arange(config.max_tokens) < words[:, None],
        state=torch.randn(batch, config.state_dim, **options),
        x=torch.randn(batch, config.horizon, config.action_dim, **options),
        t=torch.rand(batch, **options),
    )


def their_names(state_dict: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Our state dict under openpi's names, or lerobot's."""
    if isinstance(config, SmolVlaConfig):
        return smolvla_names.to_lerobot(state_dict)
    return weight_names.to_openpi(state_dict)


def described(weights: dict[str, Tensor], config: Config, batch: Batch) -> Tensor:
    """Velocities [B, H, D] of `their_names` weights by the plain description, row by row, in float64."""
    assert config.vision is not None
    vision = config.vision
    numbers = (
        config.depth,
        config.heads,
        config.kv_heads,
        config.head_dim,
        vision.depth,
        vision.heads,
        vision.patch_px,
    )
    weights, batch = {key: value.double() for key, value in weights.items()}, batch.double()
    rows = [
        Row(
            images=list(batch.images[i]),
            present=batch.image_mask[i].tolist(),
            tokens=batch.tokens[i].tolist(),
            real=batch.token_mask[i].tolist(),
            state=batch.state[i],
            x=batch.x[i],
            t=float(batch.t[i]),
        )
        for i in range(len(batch.x))
    ]
    if isinstance(config, SmolVlaConfig):
        small = reference_smolvla.Sizes(*numbers, config.pixel_shuffle, config.self_attention_every)
        return torch.stack([reference_smolvla.velocity(weights, small, row) for row in rows])
    sizes = reference_pi0.Sizes(*numbers)
    return torch.stack([reference_pi0.velocity(weights, sizes, row) for row in rows])
