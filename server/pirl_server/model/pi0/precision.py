"""Weights in bfloat16, as openpi runs its models: half the memory, twice the speed with hardware support.

What stays float32 is small and decides precision: every Gemma norm with its modulation, the vision tower's patch and
position embedding, and the projections of state, action and time, between which the latents live.
"""

from __future__ import annotations

import re

import torch

from pirl_server.model.pi0.pi0 import Pi0

FLOAT32 = re.compile(
    r"vision\.(patch|position)_embedding\."
    r"|(language|expert)\.(norm|layers\.\d+\.(input|post_attention)_layernorm)\."
    r"|(state_proj|action_\w+|time_mlp_\w+)\."
)
"""start of the names that keep their precision"""


def weight_dtype(name: str) -> torch.dtype:
    """Dtype of one weight of a bfloat16 model, by its name in the state dict."""
    return torch.float32 if FLOAT32.match(name) else torch.bfloat16


def to_bfloat16(model: Pi0) -> Pi0:
    """Cast a model in place, weight by weight, and return it. Latents, state and times stay float32."""
    for name, weight in model.named_parameters():
        weight.data = weight.data.to(weight_dtype(name))
    return model
