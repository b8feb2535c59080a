"""The values that cross a process boundary: observation, action chunk, outcome of each step.

Units, once: angles in radians, lengths in metres, time in nanoseconds of the robot's message stamps (`*_ns`),
images uint8 RGB in HWC order. S = length of the state vector, D = of one action, H = horizon (actions in a chunk).
What each entry of state and action means is said by the robot's `Contract`, never guessed from its position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Vector = NDArray[np.float32]
ContinuationMethod = Literal["guided", "prefix"]

MAX_INSTRUCTION_BYTES = 4096

DRY_RUN_KEY = "dry_run"
"""metadata key, with the value `true`: the arm was in a dry run when the episode began"""


@dataclass(frozen=True)
class Observation:
    """What the robot saw and felt at one instant. Raises ValueError for a value that no port accepts.

    A missing stream is not represented here on purpose: the robot side makes no observation then.
    """

    images: Mapping[str, Image]
    """by camera name, uint8 RGB [height, width, 3]; empty for a robot without cameras"""
    state: Vector
    """[S] float32, in the order and units of `Contract.state`"""
    instruction: str
    robot_id: str = "robot"
    capture_time_ns: int = 0
    """clock of the robot's message stamps, as `StepOutcome.time_ns`, when this observation was captured"""

    def __post_init__(self) -> None:
        if self.state.ndim != 1 or self.state.dtype != np.float32:
            raise ValueError(f"state must be a float32 vector, got {self.state.dtype} {self.state.shape}")
        if not np.isfinite(self.state).all():
            entry = int(np.flatnonzero(~np.isfinite(self.state))[0])
            raise ValueError(f"state: entry {entry} is not finite: {self.state[entry]}")
        check_instruction(self.instruction)
        for name, image in self.images.items():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(
                    f"image '{name}' must be uint8 RGB [height, width, 3], got {image.dtype} {image.shape}"
                )


def check_instruction(text: str) -> None:
    """Raise ValueError for a text that can't be stored or sent, or is longer than any prompt."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"instruction: character {error.start} is half of a surrogate pair, no text") from None
    if size > MAX_INSTRUCTION_BYTES:
        raise ValueError(f"instruction: {size} bytes, at most {MAX_INSTRUCTION_BYTES} are accepted")


@dataclass(frozen=True)
class ActionChunk:
    """H actions that follow one observation, with what is needed to play them and to account for them."""

    actions: Vector
    """[H, D] float32, in the order and units of `Contract.action`"""
    dt_s: float
    """time between two actions"""
    chunk_id: str
    """unique per inference; `StepOutcome` refers to it"""
    policy_version: str
    """content hash of the one checkpoint that produced every action of this chunk"""
    seed: int
    """seed of the initial noise; the same observation and seed give the same actions on the same machine"""
    execute_horizon: int
    """how many of the H actions to play before the next chunk should be there"""
    start_time_ns: int = 0
    """capture time of the observation it answers, robot's clock"""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """stage -> milliseconds spent in the server (decode, queue, infer, total)"""
    continued: int = 0
    """this many leading actions are those of the `PreviousChunk` that was asked with, unchanged"""

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or self.actions.dtype != np.float32:
            raise ValueError(f"actions must be float32 [H, D], got {self.actions.dtype} {self.actions.shape}")


@dataclass(frozen=True)
class PreviousChunk:
    """What the robot still plays at the request: the new chunk must continue it (real-time chunking)."""

    actions: Vector
    """[n, D] float32, contract units: what is commanded from the observation's capture on; n <= H"""
    inference_delay: int
    """this many of them will have been played when the reply arrives: they come back unchanged"""
    method: ContinuationMethod = "guided"
    """guided: any flow policy (arXiv 2506.07339); prefix: one trained for it (arXiv 2512.05964)"""
    chunk_id: str = ""
    """of the chunk they were taken from"""

    def __post_init__(self) -> None:
        if self.actions.ndim != 2 or self.actions.dtype != np.float32:
            raise ValueError(f"actions must be float32 [n, D], got {self.actions.dtype} {self.actions.shape}")
        if not 0 <= self.inference_delay <= len(self.actions):
            raise ValueError(
                f"inference_delay {self.inference_delay} must lie within the {len(self.actions)} previous actions"
            )


class Alteration(IntFlag):
    """Why an executed action is not the sampled one; any bit masks the step out of PPO.

    Imitation keeps a step whose action was changed, because it learns from what was executed, and leaves out one where
    the arm held instead. DRY_RUN keeps the whole episode out of every learner: nothing was executed.
    """

    NONE = 0
    LIMIT = 1
    """slowed down or clamped: position, velocity, acceleration or jerk"""
    JUMP = 2
    """step larger than allowed, shortened"""
    NOT_FINITE = 4
    """NaN or infinity: rejected, the arm held"""
    STALE = 8
    """chunk or observation too old: rejected, the arm held"""
    WATCHDOG = 16
    """nothing to play: the arm held"""
    BLENDED = 32
    """mixed with the previous chunk"""
    CLIPPED = 64
    """clipped to the action range before execution, as the training environment does too: keeps PPO valid"""
    WORKSPACE = 128
    """the tool centre would have left the workspace: stopped in front of its wall or moved along it"""
    EMERGENCY_STOP = 256
    """the software stop is latched: the arm brakes and holds"""
    LINK_LOSS = 512
    """no newer chunk came: played beyond execute_horizon, or braking after it"""
    CONTINUED = 1024
    """sampled so as to continue the chunk before it: its density is not the policy's"""
    DRY_RUN = 2048
    """computed only: no controller was sent anything, and `state` does not follow from `executed`"""


class ControlSource(IntEnum):
    """Who drove a step."""

    POLICY = 0
    HUMAN = 1
    HOLD = 2


@dataclass(frozen=True)
class StepOutcome:
    """Outcome of action `index` of chunk `chunk_id`; reported by the robot, written by the server."""

    chunk_id: str
    index: int
    executed: Vector
    """[D] float32: what was really commanded, in the units of `Contract.action`"""
    state: Vector
    """[S] float32 after the step"""
    reward: float = 0.0
    alterations: Alteration = Alteration.NONE
    source: ControlSource = ControlSource.POLICY
    time_ns: int = 0
