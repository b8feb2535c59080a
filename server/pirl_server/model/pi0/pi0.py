"""pi0 and pi0.5: a vision-language prefix and an action expert that predicts the flow's velocity.

Suffix tokens: state and H actions (pi0), H actions (pi0.5). Clock: t = 1 noise, t = 0 action. Images, state and actions
are normalised by the caller.
Shape letters: B batch, C cameras, L text tokens, T prefix tokens, H horizon, D action dim, S state dim, W width,
N times of S tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from pirl_server.model.flow_model import FlowModel
from pirl_server.model.layers.attention_mask import key_bias
from pirl_server.model.layers.gemma import Gemma, KeyValue, rotary
from pirl_server.model.layers.siglip import Siglip, image_tokens
from pirl_server.model.layers.time_embedding import time_embedding
from pirl_server.model.pi0.config import Pi0Config
from pirl_server.model.pi0.denoiser import Denoiser
from pirl_server.model.pi0.suffix import Condition, Context, suffix_context
from pirl_server.model.prefix import Prefix, compact, positions


class Pi0(FlowModel):
    """The whole policy network. `encode_prefix` once per observation, then `velocity` or a `denoiser`."""

    VLM_PARTS = ("vision.", "projector.", "embed_tokens.", "language.")
    VLM_TOWER, EXPERT_TOWER = "language", "expert"

    config: Pi0Config

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
        self.expert = Gemma(config, config.expert, adaptive=config.family == "pi05")
        self.action_in_proj = nn.Linear(config.action_dim, width)
        if config.family == "pi05":
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(config.state_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)

    def encode_prefix(
        self,
        images: Tensor | None,
        image_mask: Tensor | None,
        tokens_BL: Tensor,
        token_mask_BL: Tensor,
        *,
        pooled: bool = False,
        static: bool = False,
    ) -> Prefix:
        """Run vision and language: images [B, C, 3, h, w] in [-1, 1] with image_mask [B, C], or None for no camera.

        Absent images and padded text take no position and cost nothing, unless shapes must be `static`: then masks do
        the work, as compilers and CUDA graphs need it. `pooled` asks for the mean output, one more block.
        """
        x_BTW = self.embed_tokens(tokens_BL) * math.sqrt(self.config.vlm.width)
        mask_BT = token_mask_BL
        if images is not None and image_mask is not None:
            patches, patch_mask = image_tokens(self.vision, self.projector, images, image_mask, static=static)
            x_BTW = torch.cat([patches.to(x_BTW.dtype), x_BTW], dim=1)
            mask_BT = torch.cat([patch_mask, mask_BT], dim=1)
        else:
            assert self.config.vision is None, "this model was built with a camera"
        if not static:
            x_BTW, mask_BT = compact(x_BTW, mask_BT)
        full = not static and bool(mask_BT.all())
        bias = None if full else key_bias(mask_BT, x_BTW.dtype)
        turn = rotary(positions(mask_BT), self.config.head_dim, x_BTW.dtype)
        count_B, mean_BW = mask_BT.sum(dim=1), None
        if pooled:
            out_BTW, caches = self.language(x_BTW, bias, turn)
            mean_BW = (out_BTW * mask_BT[..., None]).sum(dim=1) / count_B[:, None].clamp(min=1)
        else:
            caches = self.language.keys_values(x_BTW, bias, turn)
        keys, values = (torch.stack(part) for part in zip(*caches))
        return Prefix(keys, values, mask_BT, count_B, mean_BW, full)

    def velocity_and_features(
        self, prefix: Prefix, state_BS: Tensor | None, x_BHD: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's normed outputs at the action tokens [B, H, W], which V_expert reads.

        pi0.5 ignores the state.
        """
        condition, state = self.condition(t_B), self.embed_state(state_BS)
        context = suffix_context(prefix, x_BHD.shape[1], self.expert, state=state is not None)
        out_BSW, _ = self.run_suffix(state, x_BHD, condition, context)
        return self.read_out(out_BSW[:, -x_BHD.shape[1] :])

    def run_suffix(
        self, state_B1W: Tensor | None, x_BHD: Tensor, condition: Condition, context: Context
    ) -> tuple[Tensor, list[KeyValue]]:
        """Expert outputs [B, S, W] of the state token, if there is one, and the actions; and their keys and values."""
        tokens = self.embed_actions(x_BHD, condition)
        if state_B1W is not None:
            tokens = torch.cat([state_B1W, tokens], dim=1)
        return self.expert(tokens.to(self.expert.dtype), *context, condition.modulations)  # type: ignore[no-any-return]

    def denoiser(self, prefix: Prefix, state_BS: Tensor | None, steps: int, given_BH: Tensor | None = None) -> Denoiser:
        """Velocity for inference over one fixed schedule: computes once what the K steps of a chunk share.

        The tokens that are `given` are clean actions: their time is 0 throughout.
        """
        return Denoiser(self, prefix, state_BS, steps, given_BH)

    def condition(self, t: Tensor) -> Condition:
        """What the expert needs to know of times [N], or of one per token [N, H]."""
        t_NS = t if t.ndim == 2 else t[:, None]
        time_NSW = time_embedding(t_NS, self.config.expert.width).to(self.action_in_proj.weight.dtype)
        if self.config.family == "pi05":
            known_NSW = silu(self.time_mlp_out(silu(self.time_mlp_in(time_NSW))))
            return Condition(None, self.expert.modulations(known_NSW))
        mlp = self.action_time_mlp_in
        return Condition(linear(time_NSW, mlp.weight[:, time_NSW.shape[-1] :], mlp.bias), ())

    def embed_state(self, state_BS: Tensor | None) -> Tensor | None:
        """pi0's state token [B, 1, W]; None for pi0.5, whose state is in the prompt."""
        if self.config.family == "pi05":
            return None
        assert state_BS is not None, "pi0 reads the state"
        return self.state_proj(state_BS.to(self.state_proj.weight.dtype))[:, None]  # type: ignore[no-any-return]

    def embed_actions(self, x_BHD: Tensor, condition: Condition) -> Tensor:
        """Action tokens [B, H, W]: pi0's first layer on [action, time] as the sum of its halves."""
        action_BHW = self.action_in_proj(x_BHD.to(self.action_in_proj.weight.dtype))
        if condition.shift is None:
            return action_BHW  # type: ignore[no-any-return]
        half = self.action_time_mlp_in.weight[:, : action_BHW.shape[-1]]
        return self.action_time_mlp_out(silu(linear(action_BHW, half) + condition.shift))  # type: ignore[no-any-return]

    def read_out(self, out_BHW: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the features [B, H, W] it is a linear function of."""
        features_BHW = out_BHW.to(self.action_out_proj.weight.dtype)
        return self.action_out_proj(features_BHW), features_BHW
