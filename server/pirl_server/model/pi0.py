"""pi0: a vision-language prefix and an action expert that predicts the flow's velocity.

Token blocks: prefix | state | actions. Prefix tokens see each other; the state sees the prefix and itself; actions see
everything. Clock: t = 1 noise, t = 0 action. Images, state and actions are normalised by the caller.

Shape letters: B batch, C cameras, L text tokens, T prefix tokens, H horizon, D action dim, S state dim, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from pirl_server.model.config import Pi0Config
from pirl_server.model.gemma import Gemma
from pirl_server.model.prefix import Prefix
from pirl_server.model.siglip import Siglip
from pirl_server.model.time import time_embedding

VLM_PARTS = ("vision.", "projector.", "embed_tokens.", "language.")


def trim(tokens_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the columns that are padding in every row: they would cost time and change nothing."""
    used = int(mask_BL.any(dim=0).nonzero().max()) + 1
    return tokens_BL[:, :used], mask_BL[:, :used]


class Pi0(nn.Module):
    """The whole policy network. `encode_prefix` once per observation, `velocity` once per denoise step."""

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        if config.vision is not None:
            self.vision = Siglip(config.vision)
            self.projector = nn.Linear(config.vision.width, config.vlm.width)
        self.embed_tokens = nn.Embedding(config.vocabulary, config.vlm.width)
        nn.init.normal_(self.embed_tokens.weight, std=config.vlm.width**-0.5)
        self.language = Gemma(config, config.vlm)
        self.expert = Gemma(config, config.expert)
        self.state_proj = nn.Linear(config.state_dim, width)
        self.action_in_proj = nn.Linear(config.action_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)

    def vlm_parameters(self) -> Iterator[nn.Parameter]:
        """Vision, projector and language: what reinforcement learning leaves frozen."""
        return (p for name, p in self.named_parameters() if name.startswith(VLM_PARTS))

    def expert_parameters(self) -> Iterator[nn.Parameter]:
        """The action expert and its projections: what reinforcement learning trains."""
        return (p for name, p in self.named_parameters() if not name.startswith(VLM_PARTS))

    def encode_prefix(
        self, images: Tensor | None, image_mask: Tensor | None, tokens_BL: Tensor, token_mask_BL: Tensor
    ) -> Prefix:
        """Run vision and language: images [B, C, 3, h, w] in [-1, 1] with image_mask [B, C], or None for no camera.

        Absent images and padded text are masked out and take no position.
        """
        tokens_BL, token_mask_BL = trim(tokens_BL, token_mask_BL)
        x_BTW, mask_BT = self._embed(images, image_mask, tokens_BL, token_mask_BL)
        position_BT = mask_BT.cumsum(dim=1) - 1
        # Tokens that do not exist see themselves: a query without a key would give NaN. Nobody reads them.
        itself = torch.eye(mask_BT.shape[1], dtype=torch.bool, device=mask_BT.device)
        sees_BTT = (mask_BT[:, :, None] & mask_BT[:, None, :]) | itself
        out_BTW, caches = self.language(x_BTW, sees_BTT, position_BT)
        count_B = mask_BT.sum(dim=1)
        pooled_BW = (out_BTW * mask_BT[..., None]).sum(dim=1) / count_B[:, None]
        keys, values = (torch.stack(part) for part in zip(*caches))
        return Prefix(keys, values, mask_BT, count_B, pooled_BW)

    def _embed(
        self, images: Tensor | None, image_mask: Tensor | None, tokens_BL: Tensor, token_mask_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        text_BLW = self.embed_tokens(tokens_BL) * math.sqrt(self.config.vlm.width)
        if images is None or image_mask is None:
            assert self.config.vision is None, "this model was built with a camera"
            return text_BLW, token_mask_BL
        patches = self.projector(self.vision(images.flatten(0, 1)))
        image_tokens = patches.view(len(images), -1, self.config.vlm.width)
        patch_mask = image_mask.repeat_interleave(patches.shape[1], dim=1)
        return torch.cat([image_tokens, text_BLW], dim=1), torch.cat([patch_mask, token_mask_BL], dim=1)

    def velocity(self, prefix: Prefix, state_BS: Tensor, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        """Predicted velocity noise - action [B, H, D] of the noisy chunk x at time t."""
        return self.velocity_and_features(prefix, state_BS, x_BHD, t_B)[0]

    def velocity_and_features(
        self, prefix: Prefix, state_BS: Tensor, x_BHD: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's normed outputs at the action tokens [B, H, W], which V_expert reads."""
        H = x_BHD.shape[1]
        suffix = torch.cat([self.state_proj(state_BS)[:, None], self._embed_action(x_BHD, t_B)], dim=1)
        steps = torch.arange(H + 1, device=x_BHD.device)
        # The state (first) must not see the actions; actions see all. Prefix tokens are seen where they exist.
        own = (steps[None, :] == 0) | (steps[:, None] > 0)
        batch = len(prefix.mask)
        sees = torch.cat([prefix.mask[:, None].expand(-1, H + 1, -1), own.expand(batch, -1, -1)], dim=2)
        cache = list(zip(prefix.keys, prefix.values))
        out, _ = self.expert(suffix, sees, prefix.count[:, None] + steps, cache)
        features_BHW = out[:, 1:]
        return self.action_out_proj(features_BHW), features_BHW

    def _embed_action(self, x_BHD: Tensor, t_B: Tensor) -> Tensor:
        action_BHW = self.action_in_proj(x_BHD)
        time_BW = time_embedding(t_B, self.config.expert.width).to(action_BHW.dtype)
        both = torch.cat([action_BHW, time_BW[:, None].expand_as(action_BHW)], dim=-1)
        return self.action_time_mlp_out(silu(self.action_time_mlp_in(both)))  # type: ignore[no-any-return]
