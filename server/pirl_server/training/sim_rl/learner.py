"""The learner: policy, exploration and critic, built from a checkpoint, with their optimisers.

Shape letters: F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pirl_server.config.training import FlowMatchingConfig, PpoConfig
from pirl_server.model.layers.lora import DOWN, UP, merged_state_dict
from pirl_server.model.noise_net import NoiseNet
from pirl_server.model.prefix import Prefix
from pirl_server.policy.checkpoint import load_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.rollout import critics
from pirl_server.training.rollout.actor import NOISE_NET, set_up
from pirl_server.training.rollout.explorer import Explorer
from pirl_server.training.supervised.trainable_parts import freeze_and_adapt


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
        """The critic's value [...] of what it reads; see `critics.value`. Features [..., F]."""
        assert self.critic is not None
        return critics.value(self.critic, features)

    def actor(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What of policy and noise net learns, by name."""
        yield from ((name, p) for name, p in self.policy.model.named_parameters() if p.requires_grad)
        if self.explorer.net is not None:
            yield from ((NOISE_NET + name, p) for name, p in self.explorer.net.named_parameters())

    def weights(self) -> dict[str, Tensor]:
        """What the workers need before they continue: the trained weights, as a plain model's tensors.

        Tensors of any shape, by name.
        """
        state = merged_state_dict(self.policy.model)
        names = {name.rpartition(".")[0] + ".weight" if name.endswith((DOWN, UP)) else name for name, _ in self.actor()}
        sent = {name: state[name] for name in state if name in names}
        if self.explorer.net is not None:
            sent |= {NOISE_NET + name: tensor for name, tensor in self.explorer.net.state_dict().items()}
        return sent


def make_learner(checkpoint: Path, config: PpoConfig, seed: int) -> Learner:
    """Load the actor, freeze what does not learn, and make or load the critic.

    Raises ValueError for critic features that are not known and for a critic of another kind.
    """
    torch.manual_seed(seed)
    policy, net = set_up(checkpoint, config)
    critic = _critic(checkpoint, policy, config)
    freeze_and_adapt(policy.model, _parts(config))
    shared = not policy.own_prefix and config.vlm == "frozen"
    return Learner(
        policy,
        policy.prefix_table(policy.instructions) if shared else None,
        critic,
        _actor_optimizer(policy, net, config),
        None if critic is None else torch.optim.Adam(critic.parameters(), lr=config.critic_learning_rate, eps=1e-5),
        Explorer(policy, config, net),
    )


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
                "remove its critic.safetensors to train a new one"
            ) from error
    return critic


def _parts(config: PpoConfig) -> FlowMatchingConfig:
    return FlowMatchingConfig(
        vlm=config.vlm, expert=config.expert, lora_rank=config.lora_rank, lora_alpha=config.lora_alpha
    )


def _actor_optimizer(policy: FlowPolicy, net: NoiseNet | None, config: PpoConfig) -> torch.optim.Optimizer:
    """Adam with a group per learning rate; `rate` is a group's own, `lr` that of the update."""
    groups = [
        ([p for p in policy.model.expert_parameters() if p.requires_grad], config.actor_learning_rate),
        ([p for p in policy.model.vlm_parameters() if p.requires_grad], config.vlm_learning_rate),
        (list(net.parameters()) if net is not None else [], config.noise_learning_rate),
    ]
    made = [{"params": each, "rate": rate or config.actor_learning_rate} for each, rate in groups if each]
    return torch.optim.Adam(made, lr=config.actor_learning_rate, eps=1e-5)
