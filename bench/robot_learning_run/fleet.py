"""Arms in simulation that log episodes in explore mode, side by side, as the server would write them.

The lean stepper drives them and the policy is called in this process: the samples, their densities and what is stored
of them are the server's, the network is left out.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from numpy.typing import NDArray

from pirl_contract import ActionChunk, Contract, ControlSource, Env, Observation, StepOutcome
from pirl_contract.protocols import MakeEnv
from pirl_server.episodes.schema import Episode
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.serving.episode_builder import EpisodeBuilder, EpisodeEnd, EpisodeStart
from pirl_server.training.supervised.demonstrations import Expert

ARMS = 16
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Help:
    """A person, played by the scripted expert, who takes over once an episode has failed for long enough."""

    expert: Expert
    after: int
    """control steps"""
    share: float
    """of the episodes that someone watches"""


def of_contract(contract: Contract, episode: Episode) -> Episode:
    """The episode as of a robot whose images nobody looked at."""
    return replace(episode, info=replace(episode.info, contract=contract))


@dataclass
class _Arm:
    """One environment in the middle of an episode."""

    env: Env
    seed: int
    observation: Observation
    builder: EpisodeBuilder
    watched: bool
    steps: int = 0
    outcomes: list[StepOutcome] = field(default_factory=list)


def log_episodes(
    policy: FlowPolicy,
    make_env: MakeEnv,
    max_steps: int,
    seeds: Sequence[int],
    *,
    explore: bool = True,
    help_: Help | None = None,
) -> list[Episode]:
    """Run one episode per reset seed; return them in the order of the seeds, so that short ones are not preferred.

    A policy without a camera logs under its contract without cameras: `of_contract` puts it right. Noise is a function
    of the reset seed and the call, as in an evaluation: two versions meet the same. Whether someone watches an episode
    is a function of its seed too, so that a short log is the beginning of a longer one.
    """
    gc.collect()
    gc.freeze()  # ManiSkill collects whenever an environment opens or closes, over all that torch has imported
    waiting, found = iter(seeds), dict[int, Episode]()
    arms = [arm for _ in range(min(ARMS, len(seeds))) for arm in _begin(policy, make_env(), waiting, help_)]
    while arms:
        requests = [PolicyRequest(arm.observation, explore, arm.seed * 1000 + len(arm.builder.calls)) for arm in arms]
        for arm, sample in zip(list(arms), policy.sample_batch(requests)):
            assert isinstance(sample, PolicySample)
            success = _play(policy, arm, sample, max_steps, help_)
            if success is not None:
                found[arm.seed] = _end(arm, success)
                arms.remove(arm)
                arms.extend(_begin(policy, arm.env, waiting, help_))
    return [found[seed] for seed in seeds]


def _begin(policy: FlowPolicy, env: Env, waiting: Iterator[int], help_: Help | None) -> Iterator[_Arm]:
    """The next episode of this environment; none, and the environment closed, when there is no seed left."""
    seed = next(waiting, None)
    if seed is None:
        env.close()
        return
    observation = env.reset(seed)
    contract = policy.contract if policy.card.model.vision is not None else replace(policy.contract, cameras=())
    start = EpisodeStart(
        "fleet", contract, observation.instruction, policy.name, policy.execute_horizon, True, {"seed": str(seed)}
    )
    scratch = Path(gettempdir()) / f"pirl-fleet-{uuid.uuid4().hex}"
    watched = help_ is not None and bool(np.random.default_rng(seed).random() < help_.share)
    yield _Arm(env, seed, observation, EpisodeBuilder(f"{seed:032x}", start, scratch), watched)


def _play(policy: FlowPolicy, arm: _Arm, sample: PolicySample, max_steps: int, help_: Help | None) -> bool | None:
    """Play one chunk; whether the episode ended in success or failure, None when it goes on."""
    chunk = ActionChunk(
        actions=sample.actions, dt_s=1.0 / policy.contract.rate_hz, chunk_id=uuid.uuid4().hex,
        policy_version=policy.version, seed=sample.seed, execute_horizon=policy.execute_horizon,
        start_time_ns=arm.observation.capture_time_ns,
    )  # fmt: skip
    arm.builder.add_call(arm.observation, sample, chunk, 0.0)
    for index in range(policy.execute_horizon):
        human = arm.watched and help_ is not None and arm.steps >= help_.after
        action = help_.expert(arm.env.observe()) if human and help_ is not None else sample.actions[index]
        result = arm.env.step(np.asarray(action, np.float32))
        arm.steps += 1
        arm.observation = arm.env.observe()
        arm.builder.add_outcomes(
            [
                StepOutcome(
                    "" if human else chunk.chunk_id, index, np.asarray(action, np.float32), arm.observation.state,
                    result.reward, source=ControlSource.HUMAN if human else ControlSource.POLICY,
                    time_ns=int(arm.steps * 1e9 / policy.contract.rate_hz),
                )
            ]
        )  # fmt: skip
        if result.terminated or result.truncated or arm.steps >= max_steps:
            return bool(result.success)
    return None


def _end(arm: _Arm, success: bool) -> Episode:
    arm.builder.announce(EpisodeEnd(success, "sim", "success" if success else "time_limit"))
    episode = arm.builder.finish()
    arm.builder.close()
    return episode
