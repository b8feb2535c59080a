"""Rollouts of many environments with one policy in one process: it returns decisions, not observations.

Shape letters: N environments, H horizon, D action dim, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from pirl_contract import Env, Observation
from pirl_contract.protocols import MakeEnv
from pirl_server.config.training import PpoConfig
from pirl_server.model.prefix import Prefix
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.processor import Array
from pirl_server.training import prefix_cache
from pirl_server.training.rollout import critics
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.critics import POLICY, CriticInput
from pirl_server.training.rollout.explorer import Explored, Explorer


class Decided(NamedTuple):
    """One decision in each environment, before it is played."""

    observations: list[Observation]
    prefix: Prefix
    sentence_N: np.ndarray
    critic: Array
    found: Explored


class Played(NamedTuple):
    """What came of it."""

    reward_N: np.ndarray
    done_N: np.ndarray
    valid_N: np.ndarray


class Ended(NamedTuple):
    """An episode."""

    success: bool
    steps: int
    total: float


class Collector:
    """N environments that persist from one call of `collect` to the next."""

    def __init__(
        self,
        make_env: MakeEnv,
        policy: FlowPolicy,
        envs: int,
        seeds: Iterator[int],
        max_steps: int,
        critic_features: str = POLICY,
        keep_bytes: int = prefix_cache.KEEP_BYTES,
        explorer: Explorer | None = None,
    ) -> None:
        """Without an `explorer`, which brings its config, the defaults' with these critic features."""
        self._explorer = explorer or Explorer(policy, PpoConfig(critic_features=critic_features))
        self.policy_version = 0
        """number of the policy's weights, which each decision carries"""
        self._policy, self._max_steps, self._config = policy, max_steps, self._explorer.config
        self._keep_bytes = keep_bytes if self._config.vlm == "frozen" else 0
        self._sentences = policy.instructions
        self._table = self._prefix_table()
        self._critic = CriticInput(policy, self._config.critic_features or POLICY)
        self._generator = torch.Generator().manual_seed(next(seeds))
        self._seeds = seeds
        made = [make_env() for _ in range(envs)]
        self._lanes = [EnvSlot(env, seeds, env.reset(next(seeds))) for env in made]

    @torch.inference_mode()
    def collect(self, decisions: int) -> DecisionBatch:
        """Make `decisions` decisions in each environment, restarting those whose episode ends."""
        self._refresh()
        rows: list[tuple[Decided, Played]] = []
        ended: list[Ended] = []
        env_steps = 0
        for _ in range(decisions):
            decided = self._decide()
            outcome = [lane.play(chunk) for lane, chunk in zip(self._lanes, self._chunks(decided.found))]
            env_steps += sum(taken for _, _, taken in outcome)
            rows.append((decided, played(outcome)))
            for lane, (_, done, _) in zip(self._lanes, outcome):
                if done:
                    ended.append(Ended(lane.success, lane.steps, lane.total))
                    lane.restart()
        return self._batch(rows, ended, env_steps)

    def close(self) -> None:
        """Close the environments."""
        for lane in self._lanes:
            lane.env.close()

    def _refresh(self) -> None:
        """Prefixes are kept from call to call unless what makes them learns."""
        if self._config.vlm != "frozen":
            self._table = self._prefix_table()

    def _prefix_table(self) -> Prefix | None:
        if self._policy.own_prefix:
            return None
        return self._policy.prefix_table(self._sentences, pooled=self._config.critic == "vlm")

    def _decide(self) -> Decided:
        sentence_N = self._sentence()
        prefix = self._prefix(sentence_N)
        if self._config.critic == "state":
            critic = self._state_reading(sentence_N)
            shared = self._critic.is_the_policys
            found = self._draw(critic[:, :-1] if shared else self._policy.features(self._state()), prefix)
        else:
            found = self._draw(self._policy.features(self._state()), prefix)
            read = found.outputs.numpy()
            if self._config.critic == "vlm":
                read = critics.prefix_reading(prefix.pooled, len(sentence_N))
            critic = critics.with_elapsed(read, self._elapsed())
        return Decided([lane.observation for lane in self._lanes], prefix, sentence_N, critic, found)

    def _draw(self, features_NF: Array, prefix: Prefix) -> Explored:
        return self._explorer.draw(features_NF, prefix, self._generator)

    def _state_reading(self, sentence_N: np.ndarray) -> Array:
        """What a state critic reads of all environments [N, F]."""
        return critics.with_elapsed(self._critic.features(self._state(), sentence_N), self._elapsed())

    def _last_reading(self) -> Array:
        """What the critic reads after the last decision: V_expert has to denoise once more for it."""
        return self._state_reading(self._sentence()) if self._config.critic == "state" else self._decide().critic

    def _elapsed(self) -> Array:
        return np.array([lane.steps / self._max_steps for lane in self._lanes], np.float32)

    def _sentence(self) -> np.ndarray:
        return np.array([self._sentences.index(lane.observation.instruction) for lane in self._lanes], np.int64)

    def _state(self) -> Array:
        return np.stack([lane.observation.state for lane in self._lanes])

    def _prefix(self, sentence_N: np.ndarray) -> Prefix:
        if self._table is None:
            observations = [lane.observation for lane in self._lanes]
            return self._policy.prefixes(observations, pooled=self._config.critic == "vlm")
        return self._table.select(torch.from_numpy(sentence_N))

    def _chunks(self, found: Explored) -> Array:
        return self._policy.to_actions(found.action[:, : self._policy.execute_horizon], self._state())

    def _batch(self, rows: Sequence[tuple[Decided, Played]], ended: Sequence[Ended], env_steps: int) -> DecisionBatch:
        decided, outcome = [row for row, _ in rows], [result for _, result in rows]
        return DecisionBatch(
            features_TNF=np.stack([row.critic for row in decided]),
            sentence_TN=np.stack([row.sentence_N for row in decided]),
            chain_TNKHD=np.stack([row.found.latents.numpy() for row in decided]),
            index_TN=np.stack([row.found.step.numpy() for row in decided]),
            log_prob_TN=np.stack([row.found.log_prob.numpy() for row in decided]),
            reward_TN=np.stack([result.reward_N for result in outcome]),
            done_TN=np.stack([result.done_N for result in outcome]),
            valid_TN=np.stack([result.valid_N for result in outcome]),
            policy_version_TN=np.full((len(rows), len(self._lanes)), self.policy_version, np.int64),
            last_features_NF=self._last_reading(),
            episode_success=np.array([episode.success for episode in ended], np.bool_),
            episode_steps=np.array([episode.steps for episode in ended], np.int64),
            episode_return=np.array([episode.total for episode in ended], np.float32),
            env_steps=np.array([env_steps], np.int64),
            **self._seen(decided),
        )

    def _seen(self, decided: Sequence[Decided]) -> dict[str, Any]:
        """What the learner needs to make the policy's inputs again: nothing where features and sentence say it all."""
        config, vision = self._config, self._policy.card.model.vision
        same = config.critic == "state" and self._critic.is_the_policys and config.vlm == "frozen"
        if self._table is not None and same:
            return {}
        state_TNS = np.stack([[observation.state for observation in row.observations] for row in decided])
        if self._table is None and prefix_cache.row_bytes(decided[0].prefix) <= self._keep_bytes:
            return {"state_TNS": state_TNS, "prefix": prefix_cache.to_arrays([row.prefix for row in decided])}
        if vision is None:
            return {"state_TNS": state_TNS}
        names = [camera.name for camera in self._policy.contract.cameras]
        images = {
            name: np.stack([[each.images[name] for each in row.observations] for row in decided]) for name in names
        }
        return {"state_TNS": state_TNS, "images": images}


def played(outcome: Sequence[tuple[float, bool, int]]) -> Played:
    """Reward and end of a decision in each environment, as `EnvSlot.play` said."""
    reward_N = np.array([reward for reward, _, _ in outcome], np.float32)
    done_N = np.array([done for _, done, _ in outcome], np.bool_)
    return Played(reward_N, done_N, np.ones_like(done_N))


@dataclass
class EnvSlot:
    """An environment, the reset seeds it takes, and where its episode stands."""

    env: Env
    seeds: Iterator[int]
    observation: Observation
    steps: int = 0
    success: bool = False
    total: float = 0.0
    """reward of the episode so far"""

    def play(self, actions_HD: Array) -> tuple[float, bool, int]:
        """Execute a chunk; return its summed reward, whether the episode ended and the control steps it took."""
        total, taken, ended = 0.0, 0, False
        for action in actions_HD:
            result = self.env.step(action)
            total, taken = total + result.reward, taken + 1
            self.success = self.success or result.success
            if ended := result.terminated or result.truncated:
                break
        self.steps += taken
        self.total += total
        if not ended:
            self.observation = self.env.observe()
        return total, ended, taken

    def restart(self, seed: int | None = None) -> None:
        """Begin the next episode: of this environment's seeds, or of the one given."""
        self.observation = self.env.reset(next(self.seeds) if seed is None else seed)
        self.steps, self.success, self.total = 0, False, 0.0


class GroupCollector(Collector):
    """As `Collector`; neighbours in groups of `PpoConfig.group` meet the same initial state with noise of their own."""

    @torch.inference_mode()
    def collect(self, decisions: int) -> DecisionBatch:
        """Play `decisions` episodes in each environment; episodes lie side by side, groups stay together."""
        self._refresh()
        return DecisionBatch.merge([self._round() for _ in range(decisions)])

    def _round(self) -> DecisionBatch:
        """One episode in each environment. What follows its end is not valid, and not played."""
        for first in range(0, len(self._lanes), self._config.group):
            seed = next(self._seeds)
            for lane in self._lanes[first : first + self._config.group]:
                lane.restart(seed)
        live = np.ones(len(self._lanes), np.bool_)
        rows: list[tuple[Decided, Played]] = []
        for _ in range(math.ceil(self._max_steps / self._policy.execute_horizon)):
            if not live.any():
                rows.append((rows[-1][0], Played(np.zeros(len(live), np.float32), live, live)))
                continue
            decided = self._decide()
            rows.append((decided, self._play(decided, live)))
            live = live & ~rows[-1][1].done_N
        ended = [Ended(lane.success, lane.steps, lane.total) for lane in self._lanes]
        return self._batch(rows, ended, sum(lane.steps for lane in self._lanes))

    def _play(self, decided: Decided, live_N: np.ndarray) -> Played:
        reward_N, done_N = np.zeros(len(live_N), np.float32), np.zeros(len(live_N), np.bool_)
        for number, (lane, chunk) in enumerate(zip(self._lanes, self._chunks(decided.found))):
            if live_N[number]:
                reward_N[number], done_N[number], _ = lane.play(chunk)
        return Played(reward_N, done_N, live_N)
