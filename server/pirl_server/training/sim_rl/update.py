"""One update from one batch of decisions: a few epochs of minibatches under a KL stop.

PPO with a critic, or GRPO with none; the losses are those of `algorithm.ppo`, how a decision's density comes about is
the explorer's business.

Shape letters: B minibatch, K denoise steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pirl_server.algorithm.advantage import normalise
from pirl_server.algorithm.finite import gradient_norm
from pirl_server.algorithm.joint import joint_entropy
from pirl_server.algorithm.ppo import beyond_target, objective, policy_loss, value_loss
from pirl_server.config.training import PpoConfig
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.sim_rl import update_metrics
from pirl_server.training.sim_rl.bc_loss import Imitation
from pirl_server.training.sim_rl.learner import Learner
from pirl_server.training.sim_rl.update_batch import Decisions, prepare
from pirl_server.training.sim_rl.update_metrics import Numbers, everyone


def log_prob(learner: Learner, decisions: Decisions) -> tuple[Tensor, Tensor]:
    """Log-density [B] or [B, K] that the present weights give to what was drawn, and the noise's deviations."""
    prefix = decisions.prefix_of(decisions.number)
    return learner.explorer.log_prob(prefix, decisions.features, decisions.chain, decisions.index)


def update(
    learner: Learner,
    batch: DecisionBatch,
    config: PpoConfig,
    generator: torch.Generator,
    train_actor: bool,
    imitation: Imitation | None = None,
) -> Numbers:
    """Improve actor and critic in place; return the numbers of the update.

    Without `train_actor` (warm-up) the actor's optimiser sees the gradients at learning rate 0: its moments are then
    estimates, and the first real step is not the sign of one noisy gradient.
    """
    decisions = prepare(learner, batch, config)
    seen: list[Numbers] = []
    stopped = False
    for group in learner.actor_optimizer.param_groups:
        group["lr"] = group["rate"] if train_actor else 0.0
    for _ in range(config.epochs):
        for rows in torch.split(torch.randperm(len(decisions), generator=generator), config.minibatch):
            minibatch = decisions.select(rows)
            numbers = _critic_step(learner, minibatch, config) if learner.critic is not None else {}
            if not stopped:
                numbers |= _actor_step(learner, minibatch, config, imitation, first=not seen)
                stopped = beyond_target(numbers["approx_kl"], config.max_kl)
            seen.append(numbers)
    clip = update_metrics.clip_range(config, learner.policy.card.denoise_steps)
    return update_metrics.summary(seen) | clip | {"decisions": float(len(decisions))}


def _actor_step(
    learner: Learner, minibatch: Decisions, config: PpoConfig, imitation: Imitation | None, first: bool
) -> Numbers:
    """One clipped step, left out when the minibatch's KL is already above the limit."""
    found, std = log_prob(learner, minibatch)
    advantage = _scaled(minibatch.advantage, config)
    if found.ndim == 2:
        advantage = advantage[:, None].expand_as(found)
    policy, metrics = policy_loss(
        found, minibatch.old_log_prob, advantage, everyone(found), clip_low=config.clip,
        clip_high=config.clip_high or config.clip, dual_clip=config.dual_clip,
    )  # fmt: skip
    numbers = {name: float(value) for name, value in metrics.items()}
    numbers |= update_metrics.divergence(found.detach() - minibatch.old_log_prob, everyone(found))
    card = learner.policy.card
    if first:
        numbers |= update_metrics.exploration(std, minibatch.index, card.denoise_steps, card.contract.action_dim)
    if math.isnan(numbers["approx_kl"]):
        raise RuntimeError("the log-probability of the sampled actions is NaN: the weights are no longer finite")
    if beyond_target(numbers["approx_kl"], config.max_kl):
        return numbers
    entropy, near = _entropy(learner, std, config), policy.new_zeros(())
    if imitation is not None:
        near = imitation.loss()
    numbers |= {"policy_loss": float(policy.detach()), "imitation_loss": float(near.detach())}
    if config.entropy_weight:
        numbers["entropy"] = float(entropy.detach())
    loss = objective(
        policy, policy.new_zeros(()), entropy, near, value_weight=0.0, entropy_weight=config.entropy_weight or 0.0,
        imitation_weight=config.imitation_weight or 0.0,
    )  # fmt: skip
    numbers["actor_grad_norm"] = _step(loss, learner.actor_optimizer, learner.actor(), config.max_grad_norm)
    return numbers


def _scaled(advantage_B: Tensor, config: PpoConfig) -> Tensor:
    """What is relative already, to a group or a task, stays as it is."""
    if config.advantage == "grpo" or config.advantage_scale == "task":
        return advantage_B
    return normalise(advantage_B, everyone(advantage_B))


def _entropy(learner: Learner, std: Tensor, config: PpoConfig) -> Tensor:
    if not config.entropy_weight:
        return std.new_zeros(())
    card = learner.policy.card
    executed = torch.full((len(std),), card.execute_horizon, device=std.device)
    return joint_entropy(std, executed, card.contract.action_dim)


def _critic_step(learner: Learner, minibatch: Decisions, config: PpoConfig) -> Numbers:
    assert learner.critic is not None
    assert learner.critic_optimizer is not None
    value = learner.value(minibatch.critic)
    loss, metrics = value_loss(
        value, minibatch.returns, minibatch.old_value, everyone(value), clip=config.value_clip,
        huber_delta=config.huber_delta,
    )  # fmt: skip
    named = ((f"critic {name}", p) for name, p in learner.critic.named_parameters())
    norm = _step(loss, learner.critic_optimizer, named, config.max_grad_norm)
    return {
        "explained_variance": float(metrics["explained_variance"]),
        "value_loss": float(loss.detach()),
        "critic_grad_norm": norm,
    }


def _step(
    loss: Tensor, optimizer: torch.optim.Optimizer, named: Iterable[tuple[str, nn.Parameter]], max_norm: float
) -> float:
    """Backward, clip, step. Raises RuntimeError on a gradient that is not finite: nothing is changed then."""
    parameters = dict(named)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    try:
        gradient_norm(parameters.items())
    except ValueError as error:
        raise RuntimeError(f"{error}: a reward or an observation was not finite") from None
    norm = float(nn.utils.clip_grad_norm_(list(parameters.values()), max_norm))
    if not math.isfinite(norm):
        raise RuntimeError(f"gradient norm is {norm}: a reward or an observation is far too large")
    optimizer.step()
    return norm
