"""One episode in memory, and the schema of the store: every array is declared here with its dimensions.

C = policy calls, T = executed steps, S = state, D = action, H = horizon, K = denoise steps.
The string beside each array's type names its dimensions as they are stored.
A reader of PPO data takes `calls`; a reader of demonstrations takes `steps`; `steps.call` joins the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Observation

SCHEMA_VERSION = 2
PIXELS_KEY = "pixels_changed_by"
"""metadata key: a codec changed the images after the policy had seen them.

A density recomputed from them is not that of what acted.
"""

Float = NDArray[np.float32]
Int = NDArray[np.int32]
Long = NDArray[np.int64]
Bool = NDArray[np.bool_]
Images = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Calls:
    """What each policy call saw, drew and answered; C is the first axis of every array."""

    images: Images
    """by camera, uint8 [C, height, width, 3]: the very pixels that the policy saw"""
    state: Annotated[Float, "call state"]
    capture_time_ns: Annotated[Long, "call"]
    """clock of the robot's message stamps"""
    chunk: Annotated[Float, "call horizon action"]
    """[C, H, D] in the units of the contract, as drawn: neither clipped nor blended"""
    chain: Annotated[Float, "call node horizon latent"]
    """[C, K+1, H, A] in the model's normalised space, A >= D wide; node 0 is the noise, node K the action"""
    sde_index: Annotated[Int, "call"]
    """the stochastic denoise step; -1 when the chain was deterministic"""
    log_prob: Annotated[Float, "call horizon latent"]
    """behaviour log-density of node sde_index + 1, elementwise; zeros when sde_index is -1"""
    std: Annotated[Float, "call"]
    noise_level: Annotated[Float, "call"]
    value: Annotated[Float, "call"]
    """the critic's value; NaN when the checkpoint has no critic"""
    seed: Annotated[NDArray[np.uint64], "call"]
    policy_version: Annotated[Int, "call"]
    """position in `EpisodeInfo.policy_versions`"""
    step: Annotated[Int, "call"]
    """first step that played this chunk; -1 when none did"""
    latency_ms: Annotated[Float, "call"]
    """from the arrival of the request to the chunk, on the server"""


@dataclass(frozen=True)
class Steps:
    """What the robot really did; T is the first axis of every array."""

    executed: Annotated[Float, "step action"]
    state: Annotated[Float, "step state"]
    """after the step"""
    reward: Annotated[Float, "step"]
    alterations: Annotated[NDArray[np.uint32], "step"]
    """bits of `pirl_contract.Alteration`"""
    source: Annotated[NDArray[np.uint8], "step"]
    """`pirl_contract.ControlSource`"""
    call: Annotated[Int, "step"]
    """the policy call whose chunk was played; -1 when a human or a hold drove without one"""
    index: Annotated[Int, "step"]
    """which action of that chunk"""
    time_ns: Annotated[Long, "step"]
    """clock of the robot's message stamps"""
    terminated: Annotated[Bool, "step"]
    """true on the last step when the episode ended by success: the value after it is 0"""
    truncated: Annotated[Bool, "step"]
    """true on the last step of every other ending"""


@dataclass(frozen=True)
class EpisodeInfo:
    """What is said once per episode; stored as the attributes of its group."""

    id: str
    robot_id: str
    contract: Contract
    instruction: str
    success: bool | None
    """None: unlabelled"""
    label_source: str
    """operator, sim, classifier, or dataset where it was imported; empty when unlabelled"""
    end_reason: str
    """success, time_limit, operator, takeover or fault"""
    policy_name: str
    policy_versions: tuple[str, ...]
    """in order of appearance; more than one when a version was promoted meanwhile"""
    execute_horizon: int
    metadata: Mapping[str, str]
    created: str
    """ISO 8601, UTC: when it was published"""
    dry_run: bool = False
    """nothing reached an arm, in all of it or in some steps: no experience, so no learner reads it"""


@dataclass(frozen=True)
class Episode:
    """One complete episode."""

    info: EpisodeInfo
    calls: Calls
    steps: Steps
    final: Observation | None = None
    """the observation after the last step, for the value of a truncated episode"""

    @property
    def sampler(self) -> str:
        """`flow_sde` when any call left a density to learn from, else `ode`."""
        return "flow_sde" if (self.calls.sde_index >= 0).any() else "ode"
