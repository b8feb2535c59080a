"""pi_RL in simulation: rollouts by worker processes, PPO or GRPO by the learner, a checkpoint at the end.

Reads a checkpoint folder, writes another one: same vision and language, a better action expert, and its critic.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pirl_contract.protocols import MakeEnv
from pirl_server.algorithm.flow_sde import annealed
from pirl_server.config.training import PpoConfig
from pirl_server.policy.checkpoint import load_card, save_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.registry.wilson import wilson_interval
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.master_weights import saved_weights
from pirl_server.training.progress import Progress
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.pool import MakeRolloutPool, RolloutPool
from pirl_server.training.rollout.worker_pool import WorkerPool
from pirl_server.training.seeds import training_seeds
from pirl_server.training.sim_rl.bc_loss import Imitation
from pirl_server.training.sim_rl.group_advantages import NothingToCompareError
from pirl_server.training.sim_rl.learner import Learner, make_learner
from pirl_server.training.sim_rl.update import update
from pirl_server.training.timing import PhaseTimer
from pirl_server.training.train_state import TrainParts, TrainState, TrainStateFolder

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
    make_pool: MakeRolloutPool = WorkerPool,
    states: TrainStateFolder | None = None,
) -> str:
    """Improve the checkpoint in the environments that `make_env` gives; return the new version.

    `demonstrate` makes what is imitated beside, where the config says so. A cancelled run saves what it has.

    A run that finds its state in `states` continues from there, as if it had not stopped: environments have no state
    that could be saved, so wherever one is written they start new episodes in a new pool, in either case. Raises
    RuntimeError when a worker died or a number was not finite, ValueError for the state of another run.
    """
    torch.set_num_threads(config.torch_threads)
    learner = make_learner(checkpoint, config, seed)
    run = Run(learner, _imitation(learner, config, seed, demonstrate), config, seed)
    if states is not None and (state := states.load()) is not None:
        run.restore(state)
    while not run.done and not progress.cancelled:
        with closing(make_pool(make_env, checkpoint, max_steps, config=config, seed=run.reset_seed)) as pool:
            run.advance(pool, progress)
            while not (run.done or progress.cancelled or (states is not None and states.due(run.updates))):
                run.advance(pool, progress)
        if states is not None and states.due(run.updates):
            run.pools += 1
            states.save(run.state())
    return _save(learner, checkpoint, out, config, seed)


class Run:
    """One run of online RL between two updates: what learns, and how far it is."""

    def __init__(self, learner: Learner, imitation: Imitation | None, config: PpoConfig, seed: int) -> None:
        self._learner, self._imitation, self._config, self._seed = learner, imitation, config, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._timer, self._recent = PhaseTimer(), np.zeros(0, np.bool_)
        self.env_steps, self.updates, self.episodes, self.pools = 0, 0, 0, 0

    @property
    def done(self) -> bool:
        """Whether the budget of control steps is used up."""
        return self.env_steps >= self._config.env_steps

    @property
    def reset_seed(self) -> int:
        """Where the next pool's reset seeds start: behind all that earlier pools can have used."""
        return training_seeds(self._seed).start + self.episodes + self.pools * (self._config.envs + 1)

    def advance(self, pool: RolloutPool, progress: Progress) -> None:
        """One batch of rollouts and one update from it."""
        config, learner = self._config, self._learner
        _set_noise(learner, config, self.updates)
        with self._timer.timed("rollout"):
            amount = config.decisions if config.advantage == "gae" else config.rounds
            batch = pool.collect(learner.weights(), amount, learner.policy.card.noise_level, self.updates)
        with self._timer.timed("learner"):
            numbers, words = _learn(learner, batch, config, self._generator, self.updates, self._imitation)
        numbers["policy_lag"] = self.updates - float(batch.policy_version_TN.mean())
        env_steps = int(batch.env_steps[0])
        self.env_steps, self.updates = self.env_steps + env_steps, self.updates + 1
        self.episodes += len(batch.episode_success)
        self._recent = np.concatenate([self._recent, batch.episode_success])[-RECENT_EPISODES:]
        numbers |= self._timer.shares() | self._timer.rates(env_steps, batch.valid_TN.sum())
        report(progress, config, batch, self._recent, self.env_steps, {"updates": self.updates, **numbers}, words)

    def state(self) -> TrainState:
        """The run before its next pool."""
        counters = {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "pools": self.pools,
            "recent_successes": self._recent.tolist(),
        }
        return TrainState.of(self._parts(), self.updates, self._seed, counters)

    def restore(self, state: TrainState) -> None:
        """Continue from there. Raises ValueError for the state of another run."""
        state.restore(self._parts(), self._seed)
        counters, self.updates = state.counters, state.step
        self.env_steps, self.episodes, self.pools = (counters[name] for name in ("env_steps", "episodes", "pools"))
        self._recent = np.array(counters["recent_successes"], np.bool_)

    def _parts(self) -> TrainParts:
        parameters: dict[str, Tensor] = {f"actor {name}": each for name, each in self._learner.actor()}
        optimizers = {"actor": self._learner.actor_optimizer}
        if self._learner.critic is not None and self._learner.critic_optimizer is not None:
            parameters |= {f"critic {name}": each for name, each in self._learner.critic.named_parameters()}
            optimizers["critic"] = self._learner.critic_optimizer
        generators = {"minibatches": self._generator}
        if self._imitation is not None:
            generators["imitation"] = self._imitation.generator
        return TrainParts(parameters, optimizers, generators)


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
        raise ValueError("imitation_weight is set, but there are no demonstrations: leave it out")
    return Imitation(learner.policy, demonstrate(learner.policy), config, seed)


def _save(learner: Learner, checkpoint: Path, out: Path, config: PpoConfig, seed: int) -> str:
    net, critic = learner.explorer.net, learner.critic
    weights, dtype = saved_weights(learner.policy.model, config.saved_dtype, checkpoint)
    card = _card(learner, load_card(checkpoint), config, seed)
    return save_checkpoint(
        out,
        replace(card, lineage={**card.lineage, **dtype}),
        weights,
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
    """Pass on one update's numbers. Success here is of stochastic rollouts, not of an evaluation.

    `recent` [E]: whether each of the last E episodes succeeded.
    """
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
    said = f"rollout success {success:.2f}" if len(recent) else "no episode has ended yet"
    progress.progress(env_steps, config.env_steps, f"env steps, {said}{words}")
