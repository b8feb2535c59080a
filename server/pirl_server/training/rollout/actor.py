"""The policy of a rollout and its noise net: loaded, and updated from the learner's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from pirl_server.config.training import PpoConfig
from pirl_server.model.noise_net import NoiseNet
from pirl_server.policy.checkpoint import load_noise_net
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.training.master_weights import widen
from pirl_server.training.rollout.explorer import Explorer

NOISE_NET = "noise_net/"
"""how its weights are named on their way to a worker"""


def set_up(checkpoint: Path, config: PpoConfig) -> tuple[FlowPolicy, NoiseNet | None]:
    """The policy as this run samples it, and Flow-Noise's net: the checkpoint's, or a new one.

    What learns is float32 in rollouts as in the learner: rounded weights are another policy, whose ratio is not 1.
    Raises ValueError for an execute_horizon beyond the model's horizon.
    """
    policy = FlowPolicy.load(checkpoint)
    widen(policy.model, config.vlm, config.expert)
    card = replace(
        policy.card,
        noise_level=config.noise_level,
        denoise_steps=config.denoise_steps or policy.card.denoise_steps,
        execute_horizon=config.execute_horizon or policy.card.execute_horizon,
        guidance=policy.card.guidance and 1.0,  # one branch acts, and it is the one that learns
    )
    if card.execute_horizon > card.model.horizon:
        raise ValueError(f"execute_horizon {card.execute_horizon} is beyond the horizon of {card.model.horizon}")
    policy.card = card
    return policy, _noise_net(checkpoint, card) if config.noise == "flow-noise" else None


def load_weights(explorer: Explorer, weights: Mapping[str, Tensor]) -> None:
    """Take over what `Learner.weights` gave, or a part of it. Tensors of any shape, by name."""
    ours = {name: tensor for name, tensor in weights.items() if not name.startswith(NOISE_NET)}
    explorer.policy.model.load_state_dict(ours, strict=False)
    if explorer.net is not None and (nets := weights.keys() - ours.keys()):
        explorer.net.load_state_dict({name.removeprefix(NOISE_NET): weights[name] for name in nets})


def _noise_net(checkpoint: Path, card: ModelCard) -> NoiseNet:
    """A fresh one begins near the geometric mean of its bounds."""
    net = NoiseNet(card.model.expert.width, card.model.action_dim)
    if (weights := load_noise_net(checkpoint)) is not None:
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"'{checkpoint}': its noise net does not match this model") from error
    return net
