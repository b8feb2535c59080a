"""pi_RL in simulation: rollouts by worker processes, PPO or GRPO by the learner, a checkpoint at the end.

Reads a checkpoint folder, writes another one: same vision and language, a better action expert, and its critic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from pirl_contract.protocols import MakeEnv
from pirl_server.algorithm.flow_sde import annealed
from pirl_server.config.training import PpoConfig
from pirl_server.model.layers.lora import merged_state_dict
from pirl_server.policy.checkpoint import load_card, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.registry.wilson import wilson_interval
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.progress import Progress
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.worker_pool import RolloutPool
from pirl_server.training.seeds import training_seeds
from pirl_server.training.sim_rl.bc_loss import Imitation
from pirl_server.training.sim_rl.group_advantages import NothingToCompareError
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update
from pirl_server.training.timing import PhaseTimer

RECENT_EPISODES = 256


def finetune(
    checkpoint: Path,
    out: Path,
    make_env: MakeEnv,
    max_steps: int,
    config: PpoConfig,
    seed: int,
    progress: Progress,
    demonstrate: Callable[[FlowPolicy], ChunkDataset] | None = None,
) -> str:
    """Improve the checkpoint in the environments that `make_env` gives; return the new version.

    `demonstrate` makes what is imitated beside, where the config says so. A cancelled run saves what it has. Raises
    RuntimeError when a worker died or a number was not finite.
    """
    torch.set_num_threads(config.torch_threads)
    learner = make_learner(checkpoint, config, seed)
    imitation = _imitation(learner, config, seed, demonstrate)
    generator = torch.Generator().manual_seed(seed)
    first_seed = training_seeds(seed).start
    with RolloutPool(make_env, checkpoint, max_steps, config=config, seed=first_seed) as pool:
        env_steps, updates, clock, recent = 0, 0, PhaseTimer(), np.zeros(0, np.bool_)
        while env_steps < config.env_steps and not progress.cancelled:
            _set_noise(learner, config, updates)
            with clock.timed("rollout"):
                amount = config.decisions if config.advantage == "gae" else config.rounds
                batch = pool.collect(learner.weights(), amount, learner.policy.card.noise_level)
            with clock.timed("learner"):
                numbers, words = _learn(learner, batch, config, generator, updates, imitation)
            env_steps, updates = env_steps + int(batch.env_steps[0]), updates + 1
            recent = np.concatenate([recent, batch.episode_success])[-RECENT_EPISODES:]
            numbers |= clock.shares() | clock.rates(int(batch.env_steps[0]), batch.valid_TN.sum())
            report(progress, config, batch, recent, env_steps, {"updates": updates, **numbers}, words)
    return _save(learner, checkpoint, out, config, seed)


def _learn(
    learner: Learner,
    batch: DecisionBatch,
    config: PpoConfig,
    generator: torch.Generator,
    updates: int,
    imitation: Imitation | None,
) -> tuple[dict[str, float], str]:
    """The update's numbers, and why there was none."""
    train_actor = learner.critic is None or updates >= config.warmup_updates
    try:
        return update(learner, batch, config, generator, train_actor, imitation), ""
    except NothingToCompareError as nothing:
        return {"decisions": 0.0}, f"; the update was skipped: {nothing}"


def _set_noise(learner: Learner, config: PpoConfig, updates: int) -> None:
    if config.anneal_to:
        level = annealed(config.noise_level, config.anneal_to, config.anneal_over, updates)
        learner.policy.card = replace(learner.policy.card, noise_level=level)


def _imitation(
    learner: Learner, config: PpoConfig, seed: int, demonstrate: Callable[[FlowPolicy], ChunkDataset] | None
) -> Imitation | None:
    if not config.imitation_weight:
        return None
    if demonstrate is None:
        raise ValueError("imitation_weight is above 0, but there are no demonstrations: set it to 0")
    return Imitation(learner.policy, demonstrate(learner.policy), config, seed)


def _save(learner: Learner, checkpoint: Path, out: Path, config: PpoConfig, seed: int) -> str:
    net, critic = learner.explorer.net, learner.critic
    return save_checkpoint(
        out,
        _card(learner, load_card(checkpoint), config, seed),
        merged_state_dict(learner.policy.model),
        None if critic is None else critic.state_dict(),
        parent=checkpoint,
        noise_net=None if net is None else net.state_dict(),
    )


def _card(learner: Learner, before: ModelCard, config: PpoConfig, seed: int) -> ModelCard:
    """What robots are served explores by hybrid Flow-SDE: the noise level of another noise means nothing to it."""
    card = learner.policy.card
    learner_name = "ppo" if config.advantage == "gae" else "grpo"
    lineage = {
        "parent": learner.policy.version,
        "method": f"{config.noise} {learner_name}",
        "seed": str(seed),
        "config": str(asdict(config)),
    }
    level = card.noise_level if config.noise == "flow-sde" else before.noise_level
    return replace(card, noise_level=level, lineage=lineage)


def report(
    progress: Progress,
    config: PpoConfig,
    batch: DecisionBatch,
    recent: np.ndarray,
    env_steps: int,
    numbers: dict[str, float],
    words: str = "",
) -> None:
    """Pass on one update's numbers. Success here is of stochastic rollouts, not of an evaluation."""
    nan = float("nan")
    low, high = wilson_interval(int(recent.sum()), len(recent)) if len(recent) else (nan, nan)
    success = float(recent.mean()) if len(recent) else nan
    ended = len(batch.episode_steps) > 0
    progress.metrics(
        env_steps=env_steps,
        rollout_success=success,
        rollout_success_low=low,
        rollout_success_high=high,
        episode_length=float(batch.episode_steps.mean()) if ended else nan,
        episode_return=float(batch.episode_return.mean()) if ended else nan,
        reward=float(batch.reward_TN[batch.valid_TN].mean()),
        **numbers,
    )
    progress.progress(env_steps, config.env_steps, f"env steps, rollout success {success:.2f}{words}")
