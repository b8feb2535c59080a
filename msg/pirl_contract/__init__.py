"""Everything that crosses a process boundary: schema, protocols, wire codec and client.

Needs numpy, grpcio and protobuf only, so that a robot can install it without a deep-learning stack.
Nothing here imports the server, the simulator or ROS.
"""

from pirl_contract.contract import Camera, Contract, Field
from pirl_contract.protocols import Env, Policy, StepResult
from pirl_contract.rollout import RolloutResult, rollout
from pirl_contract.schema import ActionChunk, Alteration, ControlSource, Observation, PreviousChunk, StepOutcome

__all__ = [
    "ActionChunk",
    "Alteration",
    "Camera",
    "Contract",
    "ControlSource",
    "Env",
    "Field",
    "Observation",
    "Policy",
    "PreviousChunk",
    "RolloutResult",
    "StepOutcome",
    "StepResult",
    "rollout",
]
