"""The vision tower: a SigLIP-style transformer that turns each image into patch tokens.

Shape letters: N images, P patches, W width, B batch, C cameras.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pirl_server.model.layers.gelu import gelu_tanh
from pirl_server.model.layers.tower_config import VisionConfig

POSITION_AMPLITUDE = 0.5
"""about as large as what a patch's pixels become at first"""
LONGEST = 100.0
"""patches per radian of the slowest wave"""


def grid_positions(patches: int, width: int) -> Tensor:
    """Where each patch of a square image is, as waves of its row and column: [P, W], to start learning from.

    The fixed embedding of "Better plain ViT baselines for ImageNet-1k" (arXiv 2205.01580), as first value of a learned
    one.
    """
    side, waves = round(patches**0.5), width // 4
    rate = LONGEST ** -(torch.arange(waves) / max(1, waves - 1))
    grid = torch.meshgrid(*[torch.arange(side)] * 2, indexing="ij")
    row, column = (place.flatten()[:, None] * rate for place in grid)
    found = torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)
    return POSITION_AMPLITUDE * nn.functional.pad(found, (0, width - found.shape[1]))


class Attention(nn.Module):
    """Full self-attention with biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_NPW: Tensor) -> Tensor:
        """Mix patches. Returns [N, P, W]."""
        q, k, v = self.qkv_proj(x_NPW).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Pre-norm block: attention, then a tanh-gelu MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.self_attn = Attention(config.width, config.heads)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.fc1 = nn.Linear(config.width, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x_NPW: Tensor) -> Tensor:
        """One block. Returns [N, P, W]."""
        x_NPW = x_NPW + self.self_attn(self.layer_norm1(x_NPW))
        return x_NPW + self.fc2(gelu_tanh(self.fc1(self.layer_norm2(x_NPW))))  # type: ignore[no-any-return]


class Siglip(nn.Module):
    """Patches with learned positions, blocks, a final norm. No class token, no pooling."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px)
        self.position_embedding = nn.Embedding(config.patches, config.width)
        self.position_embedding.weight.data = grid_positions(config.patches, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, h, w] in [-1, 1] to tokens [N, P, W]."""
        x_NPW = (
            self.patch_embedding(images.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
            + self.position_embedding.weight
        )
        x_NPW = x_NPW.to(self.post_layernorm.weight.dtype)  # the embedding may be wider than the blocks
        for layer in self.layers:
            x_NPW = layer(x_NPW)
        return self.post_layernorm(x_NPW)  # type: ignore[no-any-return]


# From cameras to prefix tokens: images that are absent in a row do not pass the vision tower.
# Shape letters: B batch, C cameras, P patches, W language width.


def image_tokens(
    vision: nn.Module, projector: nn.Module, images: Tensor, image_mask: Tensor, *, static: bool
) -> tuple[Tensor, Tensor]:
    """Tokens [B, C P, W] of images [B, C, 3, h, w] and which exist [B, C P]; absent images give zeros.

    With `static` shapes every image is seen and the mask alone hides the absent ones.
    """
    flat, present = images.flatten(0, 1), image_mask.flatten()
    if static or bool(present.all()):
        patches = projector(vision(flat))
    else:
        seen = projector(vision(flat[present]))
        patches = seen.new_zeros(len(flat), *seen.shape[1:]).index_put((present,), seen)
    return patches.view(len(images), -1, patches.shape[-1]), image_mask.repeat_interleave(patches.shape[1], dim=1)
