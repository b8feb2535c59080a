"""Random models and batches for the tests: unequal everywhere, because equal sizes hide mistakes."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from reference_pi0 import Row, Sizes, velocity
from torch import Tensor

from pirl_server.model.layers.tower_config import TowerConfig, VisionConfig
from pirl_server.model.pi0.config import Family, Pi0Config
from pirl_server.model.pi0.pi0 import Pi0


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
        """Arguments of `Pi0.encode_prefix`."""
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


def draw_config(seed: int, family: Family) -> Pi0Config:
    """Sizes that no preset has."""
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


def draw_model(config: Pi0Config, seed: int, dtype: torch.dtype = torch.float64) -> Pi0:
    """Every weight matters: norms, biases and modulations are random too."""
    generator = torch.Generator().manual_seed(seed)
    model = Pi0(config).to(dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model


def draw_batch(config: Pi0Config, seed: int, batch: int, cameras: int) -> Batch:
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


def described(weights: dict[str, Tensor], config: Pi0Config, batch: Batch) -> Tensor:
    """Velocities [B, H, D] of openpi's weights by the plain description, row by row, in float64."""
    assert config.vision is not None
    vision = config.vision
    sizes = Sizes(
        config.depth, config.heads, config.kv_heads, config.head_dim, vision.depth, vision.heads, vision.patch_px
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
    return torch.stack([velocity(weights, sizes, row) for row in rows])
