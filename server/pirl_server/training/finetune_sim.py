"""pi_RL in simulation: rollouts by worker processes, PPO by the learner, a checkpoint at the end.

Reads a checkpoint folder, writes another one: same vision and language, a better action expert, and its critic.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from pirl_server.model.critic import StateCritic
from pirl_server.policy.checkpoint import load_checkpoint, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.batch import DecisionBatch
from pirl_server.training.collector import MakeEnv, own_prefix
from pirl_server.training.config import PpoConfig
from pirl_server.training.critic_input import critic_width
from pirl_server.training.ppo_update import Learner, update
from pirl_server.training.progress import Progress
from pirl_server.training.rollout_pool import RolloutPool
from pirl_server.training.seeds import training_seeds

RECENT_EPISODES = 256


def make_learner(checkpoint: Path, config: PpoConfig, seed: int) -> Learner:
    """Load the actor, freeze vision and language, and make or load the critic.

    Raises ValueError for critic features that are not known and for a critic of another kind.
    """
    torch.manual_seed(seed)
    policy = FlowPolicy.load(checkpoint)
    policy.card = replace(policy.card, noise_level=config.noise_level)
    for parameter in policy.model.vlm_parameters():
        parameter.requires_grad_(False)
    critic = StateCritic(critic_width(policy.card, config.critic_features))
    _, _, critic_weights = load_checkpoint(checkpoint)
    if critic_weights is not None:
        try:
            critic.load_state_dict(critic_weights)
        except RuntimeError as error:
            raise ValueError(f"'{checkpoint}': its critic is not one that RL in simulation trains") from error
    return Learner(
        policy,
        None if own_prefix(policy) else policy.prefix_table(policy.instructions),
        critic,
        torch.optim.Adam(policy.model.expert_parameters(), lr=config.actor_learning_rate, eps=1e-5),
        torch.optim.Adam(critic.parameters(), lr=config.critic_learning_rate, eps=1e-5),
    )


def finetune(
    checkpoint: Path, out: Path, make_env: MakeEnv, max_steps: int, config: PpoConfig, seed: int, progress: Progress
) -> str:
    """Improve the checkpoint in the environments that `make_env` gives; return the new version.

    A cancelled run saves what it has. Raises RuntimeError when a worker died or a gradient was not finite.
    """
    torch.set_num_threads(config.torch_threads)
    learner = make_learner(checkpoint, config, seed)
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, parameter in learner.policy.model.named_parameters() if parameter.requires_grad]
    with RolloutPool(
        make_env,
        checkpoint,
        max_steps,
        workers=config.workers,
        envs=config.envs,
        seed=training_seeds(seed).start,
        noise_level=config.noise_level,
        critic_features=config.critic_features,
    ) as pool:
        env_steps, updates, clock, recent = 0, 0, Clock(), np.zeros(0, np.bool_)
        while env_steps < config.env_steps and not progress.cancelled:
            with clock.timed("rollout"):
                state = learner.policy.model.state_dict()
                batch = pool.collect({name: state[name] for name in names}, config.decisions)
            with clock.timed("learner"):
                numbers = update(learner, batch, config, generator, train_actor=updates >= config.warmup_updates)
            env_steps, updates = env_steps + int(batch.env_steps[0]), updates + 1
            recent = np.concatenate([recent, batch.episode_success])[-RECENT_EPISODES:]
            report(progress, config, batch, recent, env_steps, {"updates": updates, **numbers, **clock.shares()})
    card = replace(
        learner.policy.card,
        lineage={
            "parent": learner.policy.version,
            "method": "flow-sde ppo",
            "seed": str(seed),
            "config": str(asdict(config)),
        },
    )
    return save_checkpoint(out, card, learner.policy.model.state_dict(), learner.critic.state_dict(), parent=checkpoint)


def report(
    progress: Progress,
    config: PpoConfig,
    batch: DecisionBatch,
    recent: np.ndarray,
    env_steps: int,
    numbers: dict[str, float],
) -> None:
    """Pass on one update's numbers. Success here is of stochastic rollouts, for the curve; promotion evaluates anew."""
    success = float(recent.mean()) if len(recent) else float("nan")
    length = float(batch.episode_steps.mean()) if len(batch.episode_steps) else float("nan")
    reward = float(batch.reward_TN.mean())
    progress.metrics(env_steps=env_steps, rollout_success=success, episode_length=length, reward=reward, **numbers)
    progress.progress(env_steps, config.env_steps, f"env steps, rollout success {success:.2f}")


class Clock:
    """Wall time by what it went into."""

    def __init__(self) -> None:
        self._seconds = {"rollout": 0.0, "learner": 0.0}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Account what happens inside."""
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def shares(self) -> dict[str, float]:
        """Seconds by part and the learner's share of the wall time."""
        total = sum(self._seconds.values())
        return {f"{name}_s": value for name, value in self._seconds.items()} | {
            "learner_share": self._seconds["learner"] / total
        }
