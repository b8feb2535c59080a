"""One PPO update from one batch of decisions: returns, then a few epochs of minibatches under a KL stop.

Only the action expert learns. Vision and language are frozen: a decision's prefix is encoded once, before the run
where it is the instruction's alone, else in the rollout or before the update, and every epoch selects rows of it.
Shape letters: T decisions, N environments, B minibatch, H horizon, D action dim, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from pirl_server.algorithm.advantage import normalise
from pirl_server.algorithm.density import sum_executed
from pirl_server.algorithm.gae import gae
from pirl_server.algorithm.ppo import policy_loss, value_loss
from pirl_server.algorithm.sample import transition_log_prob
from pirl_server.model.critic import StateCritic
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.batch import DecisionBatch
from pirl_server.training.config import PpoConfig
from pirl_server.training.kept_prefix import to_prefix
from pirl_server.training.prefix_rows import cache_rows


@dataclass(frozen=True)
class Learner:
    """What an update changes: actor and critic with their optimisers."""

    policy: FlowPolicy
    prefixes: Prefix | None
    """one row per instruction; None where each decision has a prefix of its own"""
    critic: StateCritic
    actor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer

    def value(self, features: Tensor) -> Tensor:
        """The critic's value [...] of features [..., F] whose last column is the elapsed share of the episode."""
        value: Tensor = self.critic(features[..., :-1], features[..., -1])
        return value

    def actor_parameters(self) -> list[nn.Parameter]:
        """The action expert's parameters."""
        return list(self.policy.model.expert_parameters())


@dataclass(frozen=True)
class Decisions:
    """A batch as flat tensors, with what the critic made of it."""

    prefixes: Prefix
    """shared by all minibatches"""
    prefix: Tensor
    """[B] row of `prefixes`"""
    features: Tensor
    """[B, F] what the policy reads"""
    critic: Tensor
    """[B, F] what the critic reads, with the elapsed share"""
    x: Tensor
    x_next: Tensor
    index: Tensor
    old_log_prob: Tensor
    advantage: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.returns)

    def select(self, rows: Tensor) -> Decisions:
        """A minibatch."""
        columns = [field.name for field in fields(self) if field.name != "prefixes"]
        return Decisions(self.prefixes, *(getattr(self, name)[rows] for name in columns))


def prepare(learner: Learner, batch: DecisionBatch, config: PpoConfig) -> Decisions:
    """Advantages and returns by GAE with the present critic. Episode ends are true ends: elapsed time is a feature.

    Raises RuntimeError for a reward or feature that is not finite, before anything has learnt from it.
    """
    for name in ("reward_TN", "features_TNF", "last_features_NF", "log_prob_TN"):
        if not np.isfinite(getattr(batch, name)).all():
            raise RuntimeError(f"{name.partition('_')[0]}: a value of the rollouts is not finite; nothing was learnt")
    features_TNF = torch.from_numpy(batch.features_TNF)
    done_TN = torch.from_numpy(batch.done_TN)
    never_TN = torch.zeros_like(done_TN)
    with torch.no_grad():
        value_TN = learner.value(features_TNF)
        last_N = learner.value(torch.from_numpy(batch.last_features_NF))
    reward_TN = torch.from_numpy(batch.reward_TN)
    advantage_TN, return_TN = gae(
        reward_TN, value_TN, last_N, done_TN, never_TN, torch.zeros_like(value_TN), ~never_TN,
        gamma=config.gamma, lam=config.gae_lambda,
    )  # fmt: skip

    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).flatten(0, 1)

    return Decisions(
        *policy_inputs(learner, batch, config.prefix_batch),
        features_TNF.flatten(0, 1),
        flat(batch.x_TNHD),
        flat(batch.x_next_TNHD),
        flat(batch.index_TN),
        flat(batch.log_prob_TN),
        advantage_TN.flatten(),
        return_TN.flatten(),
    )


def policy_inputs(learner: Learner, batch: DecisionBatch, prefix_batch: int) -> tuple[Prefix, Tensor, Tensor]:
    """Prefixes, the row of each decision and the policy's features [B, F], as the rollout's policy had them.

    Without a state in the batch the first two are the instructions' and the features are the critic's.
    """
    sentence = batch.sentence_TN.ravel()
    if batch.state_TNS is None:
        assert learner.prefixes is not None
        features = torch.from_numpy(batch.features_TNF).flatten(0, 1)[:, :-1]
        return learner.prefixes, torch.from_numpy(sentence), features
    policy, state = learner.policy, batch.state_TNS.reshape(len(sentence), -1)
    features = torch.from_numpy(policy.features(state))
    if learner.prefixes is not None:
        return learner.prefixes, torch.from_numpy(sentence), features
    rows = torch.arange(len(sentence))
    if batch.prefix is not None:
        return to_prefix(batch.prefix), rows, features
    images = (
        None
        if batch.images is None
        else {name: each.reshape(-1, *each.shape[2:]) for name, each in batch.images.items()}
    )
    tokens, mask = policy.processor.prompts([policy.instructions[index] for index in sentence], state)
    return cache_rows(policy, tokens, mask, rows, images, prefix_batch), rows, features


def log_prob(learner: Learner, decisions: Decisions) -> Tensor:
    """Log-density [B] that the present weights give to the stored stochastic steps."""
    policy = learner.policy
    prefix = decisions.prefixes.select(decisions.prefix)

    def velocity(x_BHD: Tensor, t_B: Tensor) -> Tensor:
        return policy.model.velocity(prefix, decisions.features, x_BHD, t_B)

    element = transition_log_prob(
        velocity, decisions.x, decisions.x_next, decisions.index, policy.card.denoise_steps, policy.transition
    )
    executed = torch.full_like(decisions.index, policy.execute_horizon)
    return sum_executed(element, executed, policy.contract.action_dim)


def update(
    learner: Learner, batch: DecisionBatch, config: PpoConfig, generator: torch.Generator, train_actor: bool
) -> dict[str, float]:
    """Improve actor and critic in place; return the numbers of the update.

    Without `train_actor` (warm-up) the actor's optimiser sees the gradients at learning rate 0: its moments are then
    estimates, and the first real step is not the sign of one noisy gradient.
    """
    decisions = prepare(learner, batch, config)
    seen: list[dict[str, float]] = []
    stopped = False
    for group in learner.actor_optimizer.param_groups:
        group["lr"] = config.actor_learning_rate if train_actor else 0.0
    for _ in range(config.epochs):
        for rows in torch.split(torch.randperm(len(decisions), generator=generator), config.minibatch):
            minibatch = decisions.select(rows)
            numbers = {"explained_variance": _critic_step(learner, minibatch, config)}
            if not stopped:
                numbers |= _actor_step(learner, minibatch, config)
                stopped = numbers["approx_kl"] > config.max_kl
            seen.append(numbers)
    return _summary(seen)


def _actor_step(learner: Learner, minibatch: Decisions, config: PpoConfig) -> dict[str, float]:
    """One clipped step, left out when the minibatch's KL is already above the limit."""
    everyone = torch.ones(len(minibatch), dtype=torch.bool)
    advantage = normalise(minibatch.advantage, everyone)
    loss, metrics = policy_loss(
        log_prob(learner, minibatch), minibatch.old_log_prob, advantage, everyone,
        clip_low=config.clip, clip_high=config.clip,
    )  # fmt: skip
    numbers = {name: float(value) for name, value in metrics.items()}
    if numbers["approx_kl"] > config.max_kl:
        return numbers
    numbers["actor_grad_norm"] = _step(loss, learner.actor_optimizer, learner.actor_parameters(), config.max_grad_norm)
    return numbers


def _critic_step(learner: Learner, minibatch: Decisions, config: PpoConfig) -> float:
    value = learner.value(minibatch.critic)
    everyone = torch.ones(len(minibatch), dtype=torch.bool)
    loss, metrics = value_loss(value, minibatch.returns, value.detach(), everyone)
    _step(loss, learner.critic_optimizer, list(learner.critic.parameters()), config.max_grad_norm)
    return float(metrics["explained_variance"])


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float) -> float:
    """Backward, clip, step. Raises RuntimeError on a gradient that is not finite: nothing is changed then."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
    if not np.isfinite(norm):
        raise RuntimeError(f"gradient norm is {norm}: a reward or an observation was not finite")
    optimizer.step()
    return norm


def _summary(seen: list[dict[str, float]]) -> dict[str, float]:
    """First minibatch's ratio, last one's KL, clip fraction and ESS, mean of the rest."""
    acted = [numbers for numbers in seen if "approx_kl" in numbers]
    summary = {"explained_variance": float(np.mean([numbers["explained_variance"] for numbers in seen]))}
    if acted:
        summary["first_log_ratio"] = acted[0]["max_log_ratio"]
        summary["actor_steps"] = float(sum("actor_grad_norm" in numbers for numbers in acted))
        for name in ("approx_kl", "clip_fraction", "ess"):
            summary[name] = acted[-1][name]
    if norms := [numbers["actor_grad_norm"] for numbers in acted if "actor_grad_norm" in numbers]:
        summary["actor_grad_norm"] = float(np.mean(norms))
    return summary
