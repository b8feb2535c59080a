"""The two protocols: `Policy` and `Env`.

The network client, the served policy, a fake and a replay are all policies; ManiSkill and a real robot's driver are
environments. `pirl_contract.conformance` holds the tests that every implementation inherits.

Shape letters: D action dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pirl_contract.contract import Contract
from pirl_contract.schema import ActionChunk, Observation, Vector


@runtime_checkable
class Policy(Protocol):
    """Observation in, action chunk out. Called by one thread at a time; no call may change its argument."""

    def infer(self, observation: Observation) -> ActionChunk:
        """Return the chunk for this observation.

        Raises ValueError when the observation does not fit the policy's contract, TimeoutError when the answer
        came too late to be played. Never returns a chunk for another observation, never a partial one.
        """

    def reset(self) -> None:
        """Forget the episode. Called before the first `infer` of each episode; calling it twice changes nothing."""


@dataclass(frozen=True)
class StepResult:
    """What one control step gave. After `terminated` or `truncated` the only legal call is `reset` (or `close`)."""

    reward: float
    terminated: bool
    """the task ended by itself (here: success); the value after it is 0"""
    truncated: bool
    """the time limit ended it; the value after it is not 0 unless elapsed time is part of the state"""
    success: bool
    """the task's own success condition holds now"""


@runtime_checkable
class Env(Protocol):
    """A world in control steps. `observe` is apart from `step` because rendering costs more than physics."""

    contract: Contract

    def reset(self, seed: int) -> Observation:
        """Start an episode. The same seed gives the same initial state; may be called at any time."""

    def step(self, action: Vector) -> StepResult:
        """Play one action [D] for one control period.

        Raises ValueError on a wrong shape or a value that is not finite, RuntimeError before the first `reset` and
        after an episode has ended.
        """

    def observe(self) -> Observation:
        """Return the current observation (renders the cameras). Calling it twice gives equal observations."""

    def close(self) -> None:
        """Free the simulator. Calling it twice changes nothing."""


MakeEnv = Callable[[], Env]
