"""Rollouts of many environments with one policy, in one process: observations never leave it, decisions do.

Shape letters: N environments, H horizon, D action dim, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pirl_contract import Env, Observation
from pirl_server.algorithm.density import sum_executed
from pirl_server.algorithm.sample import Draw, step_of_chain
from pirl_server.model.prefix import Prefix
from pirl_server.policy.features import Array
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training import kept_prefix
from pirl_server.training.batch import DecisionBatch
from pirl_server.training.critic_input import POLICY, CriticInput

MakeEnv = Callable[[], Env]


@dataclass
class Lane:
    """One environment on its way through episodes."""

    env: Env
    seeds: Iterator[int]
    observation: Observation
    steps: int = 0
    success: bool = False

    def play(self, actions_HD: Array) -> tuple[float, bool, int]:
        """Execute a chunk; return its summed reward, whether the episode ended and the control steps it took."""
        total, taken = 0.0, 0
        for action in actions_HD:
            result = self.env.step(action)
            total, taken = total + result.reward, taken + 1
            self.success = self.success or result.success
            if result.terminated or result.truncated:
                self.steps += taken
                return total, True, taken
        self.steps += taken
        self.observation = self.env.observe()
        return total, False, taken

    def restart(self) -> None:
        """Begin the next episode of this environment's seeds."""
        self.observation, self.steps, self.success = self.env.reset(next(self.seeds)), 0, False


def own_prefix(policy: FlowPolicy) -> bool:
    """Whether each observation has a prefix of its own; else the instruction's serves a whole run."""
    return policy.card.model.vision is not None or policy.processor.state_in_prompt


class Collector:
    """N environments that go on from one call of `collect` to the next."""

    def __init__(
        self,
        make_env: MakeEnv,
        policy: FlowPolicy,
        envs: int,
        seeds: Iterator[int],
        max_steps: int,
        critic_features: str = POLICY,
        keep_bytes: int = kept_prefix.KEEP_BYTES,
    ) -> None:
        self._policy, self._max_steps, self._keep_bytes = policy, max_steps, keep_bytes
        self._sentences = policy.instructions
        self._table = None if own_prefix(policy) else policy.prefix_table(self._sentences)
        self._critic = CriticInput(policy, critic_features)
        self._generator = torch.Generator().manual_seed(next(seeds))
        made = [make_env() for _ in range(envs)]
        self._lanes = [Lane(env, seeds, env.reset(next(seeds))) for env in made]

    @torch.inference_mode()
    def collect(self, decisions: int) -> DecisionBatch:
        """Make `decisions` decisions in each environment, restarting those whose episode ends."""
        rows: list[tuple[np.ndarray, ...]] = []
        seen: list[list[Observation]] = []
        prefixes: list[Prefix] = []
        ended: list[tuple[bool, int]] = []
        env_steps = 0
        for _ in range(decisions):
            features_NF, sentence_N = self._features(), self._sentence()
            seen.append([lane.observation for lane in self._lanes])
            prefixes.append(self._prefix(sentence_N))
            draw, index_N = self._draw(features_NF, prefixes[-1])
            outcome = [lane.play(chunk) for lane, chunk in zip(self._lanes, self._executed(draw))]
            env_steps += sum(taken for _, _, taken in outcome)
            rows.append((features_NF, sentence_N, *self._record(draw, index_N), *self._outcome(outcome)))
            for lane, (_, done, _) in zip(self._lanes, outcome):
                if done:
                    ended.append((lane.success, lane.steps))
                    lane.restart()
        columns: list[Any] = [np.stack(column) for column in zip(*rows)]
        columns.append(self._features())
        columns.append(np.array([success for success, _ in ended], np.bool_))
        columns.append(np.array([steps for _, steps in ended], np.int64))
        columns.append(np.array([env_steps], np.int64))
        return DecisionBatch(*columns, **self._seen(seen, prefixes))

    def close(self) -> None:
        """Close the environments."""
        for lane in self._lanes:
            lane.env.close()

    def _features(self) -> Array:
        """What the critic reads of all environments, with the elapsed share of the episode as last column [N, F]."""
        features = self._critic.features(self._state(), self._sentence())
        elapsed = np.array([[lane.steps / self._max_steps] for lane in self._lanes], np.float32)
        return np.concatenate([features, elapsed], axis=1)

    def _state(self) -> Array:
        return np.stack([lane.observation.state for lane in self._lanes])

    def _sentence(self) -> np.ndarray:
        return np.array([self._sentences.index(lane.observation.instruction) for lane in self._lanes], np.int64)

    def _prefix(self, sentence_N: np.ndarray) -> Prefix:
        if self._table is None:
            return self._policy.prefixes([lane.observation for lane in self._lanes])
        return self._table.select(torch.from_numpy(sentence_N))

    def _draw(self, critic_NF: Array, prefix: Prefix) -> tuple[Draw, torch.Tensor]:
        card = self._policy.card
        shape = (len(self._lanes), card.model.horizon, card.model.action_dim)
        noise, sde_noise = torch.randn(2, *shape, generator=self._generator)
        index = torch.randint(card.denoise_steps, shape[:1], generator=self._generator)
        features_NF = critic_NF[:, :-1] if self._critic.is_the_policys else self._policy.features(self._state())
        return self._policy.draw(features_NF, prefix, noise, sde_noise, index), index

    def _seen(self, seen: list[list[Observation]], prefixes: list[Prefix]) -> dict[str, Any]:
        """What the learner needs to make the policy's inputs again: nothing where features and sentence say it all."""
        if self._table is not None and self._critic.is_the_policys:
            return {}
        state_TNS = np.stack([[observation.state for observation in row] for row in seen])
        if self._table is None and kept_prefix.row_bytes(prefixes[0]) <= self._keep_bytes:
            return {"state_TNS": state_TNS, "prefix": kept_prefix.to_arrays(prefixes)}
        if self._policy.card.model.vision is None:
            return {"state_TNS": state_TNS}
        names = [camera.name for camera in self._policy.contract.cameras]
        images = {name: np.stack([[observation.images[name] for observation in row] for row in seen]) for name in names}
        return {"state_TNS": state_TNS, "images": images}

    def _executed(self, draw: Draw) -> Array:
        return self._policy.to_actions(draw.chain[:, -1, : self._policy.execute_horizon], self._state())

    def _record(self, draw: Draw, index_N: torch.Tensor) -> tuple[np.ndarray, ...]:
        x, x_next = step_of_chain(draw.chain, index_N)
        card = self._policy.card
        executed = torch.full_like(index_N, card.execute_horizon)
        log_prob = sum_executed(draw.log_prob, executed, card.contract.action_dim)
        return x.numpy(), x_next.numpy(), index_N.numpy(), log_prob.numpy()

    @staticmethod
    def _outcome(outcome: list[tuple[float, bool, int]]) -> tuple[np.ndarray, np.ndarray]:
        reward = np.array([reward for reward, _, _ in outcome], np.float32)
        return reward, np.array([done for _, done, _ in outcome], np.bool_)
