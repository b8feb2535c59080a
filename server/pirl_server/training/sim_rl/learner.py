"""What an update changes, and how it is made from a checkpoint: the policy, what explores with it, the critic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pirl_server.config.training import FlowMatchingConfig, PpoConfig
from pirl_server.model.layers.lora import DOWN, UP, merged_state_dict
from pirl_server.model.noise_net import NoiseNet
from pirl_server.model.pi0.pi0 import VLM_PARTS
from pirl_server.model.prefix import Prefix
from pirl_server.policy.checkpoint import load_checkpoint, load_noise_net
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.training.rollout import critics
from pirl_server.training.rollout.collector import own_prefix
from pirl_server.training.rollout.explorer import Explorer
from pirl_server.training.supervised.trainable_parts import choose

NOISE_NET = "noise_net/"
"""how its weights are named on their way to a worker"""


@dataclass(frozen=True)
class Learner:
    """What an update changes: actor and critic with their optimisers."""

    policy: FlowPolicy
    prefixes: Prefix | None
    """one row per instruction; None where each decision has a prefix of its own, or where prefixes learn"""
    critic: nn.Module | None
    """None where advantages come from groups"""
    actor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer | None
    explorer: Explorer

    def value(self, features: Tensor) -> Tensor:
        """The critic's value [...] of what it reads; see `critics.value`."""
        assert self.critic is not None
        return critics.value(self.critic, features)

    def actor(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What of policy and noise net learns, by name."""
        yield from ((name, p) for name, p in self.policy.model.named_parameters() if p.requires_grad)
        if self.explorer.net is not None:
            yield from ((NOISE_NET + name, p) for name, p in self.explorer.net.named_parameters())

    def weights(self) -> dict[str, Tensor]:
        """What the workers must be told before they go on: what learns, as a plain model's tensors."""
        state = merged_state_dict(self.policy.model)
        names = {name.rpartition(".")[0] + ".weight" if name.endswith((DOWN, UP)) else name for name, _ in self.actor()}
        sent = {name: state[name] for name in state if name in names}
        if self.explorer.net is not None:
            sent |= {NOISE_NET + name: tensor for name, tensor in self.explorer.net.state_dict().items()}
        return sent


def set_up(checkpoint: Path, config: PpoConfig) -> tuple[FlowPolicy, NoiseNet | None]:
    """The policy as this run samples it, and Flow-Noise's net: the checkpoint's, or a new one."""
    policy = FlowPolicy.load(checkpoint)
    card = replace(
        policy.card,
        noise_level=config.noise_level,
        denoise_steps=config.denoise_steps or policy.card.denoise_steps,
        execute_horizon=config.execute_horizon or policy.card.execute_horizon,
    )
    if card.execute_horizon > card.model.horizon:
        raise ValueError(f"execute_horizon {card.execute_horizon} is beyond the horizon of {card.model.horizon}")
    policy.card = card
    return policy, _noise_net(checkpoint, card) if config.noise == "flow-noise" else None


def load_weights(explorer: Explorer, weights: Mapping[str, Tensor]) -> None:
    """Take over what `Learner.weights` gave, or a part of it."""
    ours = {name: tensor for name, tensor in weights.items() if not name.startswith(NOISE_NET)}
    explorer.policy.model.load_state_dict(ours, strict=False)
    if explorer.net is not None and (nets := weights.keys() - ours.keys()):
        explorer.net.load_state_dict({name.removeprefix(NOISE_NET): weights[name] for name in nets})


def make_learner(checkpoint: Path, config: PpoConfig, seed: int) -> Learner:
    """Load the actor, freeze what does not learn, and make or load the critic.

    Raises ValueError for critic features that are not known and for a critic of another kind.
    """
    torch.manual_seed(seed)
    policy, net = set_up(checkpoint, config)
    critic = _critic(checkpoint, policy, config)
    choose(policy.model, _parts(config))
    shared = not own_prefix(policy) and config.vlm == "frozen"
    return Learner(
        policy,
        policy.prefix_table(policy.instructions) if shared else None,
        critic,
        _actor_optimizer(policy, net, config),
        None if critic is None else torch.optim.Adam(critic.parameters(), lr=config.critic_learning_rate, eps=1e-5),
        Explorer(policy, config, net),
    )


def _noise_net(checkpoint: Path, card: ModelCard) -> NoiseNet:
    """A fresh one begins near the geometric mean of its bounds."""
    net = NoiseNet(card.model.expert.width, card.model.action_dim)
    if (weights := load_noise_net(checkpoint)) is not None:
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"'{checkpoint}': its noise net is not one of this model") from error
    return net


def _critic(checkpoint: Path, policy: FlowPolicy, config: PpoConfig) -> nn.Module | None:
    critic = critics.make_critic(policy, config)
    if config.advantage == "grpo":
        return None
    _, _, weights = load_checkpoint(checkpoint)
    if weights is not None:
        try:
            critic.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"'{checkpoint}': its critic is not one that RL in simulation trains with critic '{config.critic}'; "
                "without its critic.safetensors a new one is made"
            ) from error
    return critic


def _parts(config: PpoConfig) -> FlowMatchingConfig:
    return FlowMatchingConfig(
        vlm=config.vlm, expert=config.expert, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
    )


def _actor_optimizer(policy: FlowPolicy, net: NoiseNet | None, config: PpoConfig) -> torch.optim.Optimizer:
    """Adam with a group per learning rate; `rate` is a group's own, `lr` that of the update."""
    learns = [(name, p) for name, p in policy.model.named_parameters() if p.requires_grad]
    groups = [
        ([p for name, p in learns if not name.startswith(VLM_PARTS)], config.actor_learning_rate),
        ([p for name, p in learns if name.startswith(VLM_PARTS)], config.vlm_learning_rate),
        (list(net.parameters()) if net is not None else [], config.noise_learning_rate),
    ]
    made = [{"params": each, "rate": rate or config.actor_learning_rate} for each, rate in groups if each]
    return torch.optim.Adam(made, lr=config.actor_learning_rate, eps=1e-5)
