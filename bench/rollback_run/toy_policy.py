"""A policy that reaches for a goal with three joints, and twenty-two ways in which a version of it is broken.

Shape letters: H horizon, D action dim, K denoise steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Field, Observation
from pirl_server.policy.served_policy import PolicyRequest, PolicySample, one_by_one

HORIZON, EXECUTED, JOINTS = 10, 5, 3
SENTENCE = "reach the goal"
CONTRACT = Contract(
    robot="toy-arm",
    cameras=(),
    state=tuple(Field(f"{kind}{joint}", "rad") for kind in ("q", "goal") for joint in range(JOINTS)),
    action=tuple(Field(f"q{joint}", "rad", -3.0, 3.0) for joint in range(JOINTS)),
    rate_hz=20.0,
)
Actions = NDArray[np.float32]
Fault = Callable[[Actions, NDArray[np.float32], int], Actions]
"""(good actions [H, D], state, number of the request) -> actions [H, D]; may raise, may take long"""


def reach(state: NDArray[np.float32], seed: int) -> Actions:
    """[H, D] joint targets on the way to the goal, with a little noise."""
    q, goal = state[:JOINTS].astype(np.float64), state[JOINTS:].astype(np.float64)
    rows = []
    for _ in range(HORIZON):
        q = q + np.clip(0.3 * (goal - q), -0.08, 0.08)
        rows.append(q)
    noise = np.random.default_rng(seed).normal(scale=0.004, size=(HORIZON, JOINTS))
    return (np.array(rows) + noise).astype(np.float32)


def relative(change: Callable[[Actions], Actions]) -> Fault:
    """Change the way from where the arm is."""

    def fault(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
        return (state[:JOINTS] + change(actions - state[:JOINTS])).astype(np.float32)

    return fault


def _nan_sometimes(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
    return actions * np.float32("nan") if number % 10 == 9 else actions


def _one_infinite(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
    found = actions.copy()
    found[-1, 0] = np.inf
    return found


def _slow(seconds: float, every: int = 1) -> Fault:
    def fault(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
        time.sleep(seconds if number % every == 0 else 0.0)
        return actions

    return fault


def _raise(every: int) -> Fault:
    def fault(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
        if int(1e4 * abs(float(state.sum()))) % every == 0:  # the same when it is tried once more
            raise RuntimeError("device-side assert")
        return actions

    return fault


def _noise(scale: float) -> Fault:
    def fault(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
        drawn = np.random.default_rng(number).normal(scale=scale, size=actions.shape)
        return (state[:JOINTS] + drawn).astype(np.float32)

    return fault


def _goal(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Fault:
    def fault(actions: Actions, state: NDArray[np.float32], number: int) -> Actions:
        return reach(np.concatenate([state[:JOINTS], change(state[JOINTS:])]), number)

    return fault


FAULTS: dict[str, Fault] = {
    "nan": lambda actions, state, number: actions * np.float32("nan"),
    "nan-in-one-of-ten": _nan_sometimes,
    "one-infinite-value": _one_infinite,
    "frozen-at-zero": lambda actions, state, number: np.zeros_like(actions),
    "frozen-where-it-is": lambda actions, state, number: np.tile(state[:JOINTS], (HORIZON, 1)).astype(np.float32),
    "frozen-at-a-pose": lambda actions, state, number: np.full_like(actions, 0.4),
    "degrees-for-radians": lambda actions, state, number: actions * np.float32(57.3),
    "five-times-too-far": relative(lambda way: 5.0 * way),
    "twentieth-of-the-way": relative(lambda way: 0.05 * way),
    "opposite": lambda actions, state, number: -actions,
    "away-from-the-goal": relative(lambda way: -way),
    "one-joint-opposite": lambda actions, state, number: actions * np.array([1, -1, 1], np.float32),
    "joints-swapped": lambda actions, state, number: actions[:, [1, 2, 0]],
    "constant-offset": lambda actions, state, number: actions + np.float32(0.5),
    "white-noise": _noise(1.0),
    "trembling": _noise(0.1),
    "saturated": lambda actions, state, number: np.full_like(actions, 3.0),
    "ten-times-slower": _slow(0.05),
    "stalls-in-one-of-three": _slow(0.4, every=3),
    "raises": _raise(1),
    "raises-in-one-of-four": _raise(4),
    "reaches-beside-the-goal": _goal(lambda goal: (goal + np.float32(0.12)).astype(np.float32)),
}


@dataclass
class ToyPolicy:
    """Its version's name says what is wrong with it: `good-...`, or a fault's name and a number."""

    version: str
    name: str = "toy"
    contract: Contract = CONTRACT
    horizon: int = HORIZON
    execute_horizon: int = EXECUTED
    instructions: tuple[str, ...] = (SENTENCE,)
    continuations: tuple[str, ...] = ()
    answered: int = 0

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> ToyPolicy:
        """In place of a checkpoint's."""
        return cls(folder.name)

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        """Draw a chunk; a fault shows only where the arm moves, so that no warm-up finds it."""
        time.sleep(0.005)
        actions = reach(observation.state, seed)
        if observation.state.any() and (fault := FAULTS.get(self.version.rsplit(".", 1)[0])) is not None:
            self.answered += 1
            actions = fault(actions, observation.state, self.answered)
        chain = np.zeros((5, HORIZON, JOINTS), np.float32)
        return PolicySample(actions, chain, -1, np.zeros_like(actions), 0.0, 0.0, float("nan"), seed)

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
        """Draw one after the other."""
        return one_by_one(self, asks)  # type: ignore[arg-type]
