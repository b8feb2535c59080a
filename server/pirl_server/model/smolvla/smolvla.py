"""SmolVLA: SmolVLM's vision and language, cut in depth, and an action expert that predicts the flow's velocity.

Order of tokens: cameras, text, the state as one token, H actions. Images and text see each other; the state sees them
and itself; actions see all of these, and of the actions those before them. So images and text are encoded without the
state, as `FlowModel.encode_prefix` wants it, and the state's keys and values join them where a chunk is made.

Clock: t = 1 noise, t = 0 action. Images, state and actions are normalised by the caller.
Shape letters: B batch, C cameras, L text tokens, T prefix tokens, H horizon, D action dim, S state dim, W width,
N times, V key/value heads, E head dim, P patches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from pirl_server.model.flow_model import FlowModel
from pirl_server.model.layers.attention_mask import causal_bias, key_bias, with_suffix
from pirl_server.model.layers.gemma import KeyValue, rotary
from pirl_server.model.layers.llama import Llama
from pirl_server.model.layers.siglip import Siglip, image_tokens
from pirl_server.model.layers.time_embedding import time_embedding
from pirl_server.model.prefix import Prefix, compact, positions
from pirl_server.model.scheduled_denoiser import ScheduledDenoiser, schedule_times
from pirl_server.model.smolvla.config import SmolVlaConfig
from pirl_server.model.smolvla.expert import Expert, View


class Context(NamedTuple):
    """What a pass of the expert needs besides its tokens, in the order in which it takes them."""

    causal: View
    cross: View
    cache: list[KeyValue]
    """per layer, as the expert reads it, the state included"""


class Connector(nn.Module):
    """Squares of patches as one token each, projected to the language width (SmolVLM's pixel shuffle)."""

    def __init__(self, config: SmolVlaConfig, patch_width: int) -> None:
        super().__init__()
        self.factor = config.pixel_shuffle
        self.proj = nn.Linear(patch_width * self.factor**2, config.vlm.width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [B, P, vision width] of square images to tokens [B, P / factor^2, W]; within a token row by row."""
        side = math.isqrt(patches.shape[1]) // self.factor
        shape = (len(patches), side, self.factor, side, self.factor, patches.shape[-1])
        squares = patches.view(shape).transpose(2, 3)
        return self.proj(squares.flatten(3).flatten(1, 2))  # type: ignore[no-any-return]


class SmolVla(FlowModel):
    """The whole policy network. `encode_prefix` once per observation, then `velocity` or a `denoiser`."""

    VLM_PARTS = ("vision.", "connector.", "embed_tokens.", "language.")
    VLM_TOWER, EXPERT_TOWER = "language", "expert"

    config: SmolVlaConfig

    def __init__(self, config: SmolVlaConfig) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        if config.vision is not None:
            self.vision = Siglip(config.vision)
            self.connector = Connector(config, config.vision.width)
        self.embed_tokens = nn.Embedding(config.vocabulary, config.vlm.width)
        nn.init.normal_(self.embed_tokens.weight, std=config.vlm.width**-0.5)
        self.language = Llama(config, config.vlm)
        self.expert = Expert(config, config.expert, config.self_attention_every)
        self.state_proj = nn.Linear(config.state_dim, config.vlm.width)
        self.action_in_proj = nn.Linear(config.action_dim, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)

    def embed_prefix(
        self,
        images: Tensor | None,
        image_mask: Tensor | None,
        tokens_BL: Tensor,
        token_mask_BL: Tensor,
        *,
        static: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Tokens of cameras and text [B, T, W], both scaled by sqrt(W), and which exist [B, T].

        Images [B, C, 3, h, w] in [-1, 1] with image_mask [B, C], or None for no camera.
        """
        x_BTW, mask_BT = self.embed_tokens(tokens_BL), token_mask_BL
        if images is not None and image_mask is not None:
            patches, patch_mask = image_tokens(self.vision, self.connector, images, image_mask, static=static)
            x_BTW = torch.cat([patches.to(x_BTW.dtype), x_BTW], dim=1)
            mask_BT = torch.cat([patch_mask, mask_BT], dim=1)
        else:
            assert self.config.vision is None, "this model was built with a camera"
        return x_BTW * math.sqrt(self.config.vlm.width), mask_BT

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
        """Run vision and language on images [B, C, 3, h, w] and image_mask [B, C] and on the text, without the state.

        Absent images and padded text take no position and cost nothing, unless shapes must be `static`: then masks do
        the work. `pooled` asks for the mean output, one more block.
        """
        x_BTW, mask_BT = self.embed_prefix(images, image_mask, tokens_BL, token_mask_BL, static=static)
        x_BTW = x_BTW.to(self.language.dtype)
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
        """Velocity [B, H, D] and the expert's normed outputs [B, H, W], which V_expert reads."""
        return self.run_expert(x_BHD, self.time_shift(t_B), self.context(prefix, state_BS))

    def denoiser(self, prefix: Prefix, state_BS: Tensor | None, steps: int, given_BH: Tensor | None = None) -> Denoiser:
        """Velocity for inference over one fixed schedule: computes once what the K steps of a chunk share.

        The tokens that are `given` are clean actions: their time is 0 throughout.
        """
        return Denoiser(self, prefix, state_BS, steps, given_BH)

    def context(self, prefix: Prefix, state_BS: Tensor | None) -> Context:
        """All that the expert needs to know of the observation: the state joins the prefix as its last token."""
        assert state_BS is not None, "SmolVLA reads the state"
        shared, state = list(zip(prefix.keys, prefix.values)), self.encode_state(prefix, state_BS)
        read = zip(self.expert.read(shared), self.expert.read(state))
        cache = [(_joined(old[0], new[0]), _joined(old[1], new[1])) for old, new in read]
        return Context(*self._views(prefix), cache)

    def encode_state(self, prefix: Prefix, state_BS: Tensor) -> list[KeyValue]:
        """Keys and values of the state token, which sees the prefix: per layer [B, V, 1, E] each."""
        x_B1W = self.state_proj(state_BS.to(self.state_proj.weight.dtype))[:, None].to(self.language.dtype)
        bias = None if prefix.full else key_bias(with_suffix(prefix.mask, 1), x_B1W.dtype)
        turn = rotary(prefix.count[:, None], self.config.head_dim, x_B1W.dtype)
        return self.language.keys_values(x_B1W, bias, turn, list(zip(prefix.keys, prefix.values)))

    def _views(self, prefix: Prefix) -> tuple[View, View]:
        """Of the layers that see earlier actions too, and of those that see the prefix alone and count from 0."""
        seen_BT, dtype = with_suffix(prefix.mask, 1), self.expert.dtype
        actions = torch.arange(self.config.horizon, device=seen_BT.device)
        after_BH = prefix.count[:, None] + 1 + actions
        turns = [rotary(position, self.config.head_dim, dtype) for position in (after_BH, actions[None])]
        causal = causal_bias(seen_BT, self.config.horizon, self.expert.group, dtype)
        return View(causal, turns[0]), View(None if prefix.full else key_bias(seen_BT, dtype), turns[1])

    def run_expert(self, x_BHD: Tensor, shift: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Velocity [B, H, D] and the expert's outputs [B, H, W], at the time that `time_shift` was asked for."""
        tokens_BHW = self.embed_actions(x_BHD, shift).to(self.expert.dtype)
        features_BHW = self.expert(tokens_BHW, *context).to(self.action_out_proj.weight.dtype)
        return self.action_out_proj(features_BHW), features_BHW

    def time_shift(self, t: Tensor) -> Tensor:
        """Time half of the action-time MLP's first layer [N, 1 or H, W], of times [N], or of one per token [N, H]."""
        t_NS = t if t.ndim == 2 else t[:, None]
        mlp, width = self.action_time_mlp_in, self.config.expert.width
        return linear(time_embedding(t_NS, width).to(mlp.weight.dtype), mlp.weight[:, width:], mlp.bias)

    def embed_actions(self, x_BHD: Tensor, shift: Tensor) -> Tensor:
        """Action tokens [B, H, W]: the first layer on [action, time] as the sum of its halves."""
        action_BHW = self.action_in_proj(x_BHD.to(self.action_in_proj.weight.dtype))
        half = self.action_time_mlp_in.weight[:, : action_BHW.shape[-1]]
        return self.action_time_mlp_out(silu(linear(action_BHW, half) + shift))  # type: ignore[no-any-return]


class Denoiser(ScheduledDenoiser):
    """A velocity (x_BHD, t_B) -> v_BHD of one observation, for times on the schedule, one time for all rows.

    The state token and the cross-attention's keys are computed here, once per chunk. Where tokens are `given`, they
    have time 0 instead.
    """

    @torch.no_grad()
    def __init__(
        self, model: SmolVla, prefix: Prefix, state_BS: Tensor | None, steps: int, given_BH: Tensor | None = None
    ) -> None:
        self.model, self.steps = model, steps
        like = model.action_in_proj.weight
        self.shifts = list(model.time_shift(schedule_times(like, steps)).unbind())
        if given_BH is not None:
            clean = model.time_shift(torch.zeros(1, device=like.device))
            self.shifts = [torch.where(given_BH[..., None], clean, noisy) for noisy in self.shifts]
        self.context = model.context(prefix, state_BS)

    def _predict(self, k: int, x_BHD: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.run_expert(x_BHD, self.shifts[k], self.context)


def _joined(prefix: Tensor, state: Tensor) -> Tensor:
    """Of keys, or of values, [B, V, T + 1, E]; a shared prefix becomes one per row."""
    return torch.cat([prefix.expand(len(state), -1, -1, -1), state.to(prefix.dtype)], dim=2)
