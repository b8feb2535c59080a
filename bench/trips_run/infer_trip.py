"""One Infer of an open episode over a session: client, service, engine, policy and back."""

from __future__ import annotations

import time

import numpy as np
from tiny_server import tiny_server
from tracer import Trip

from pirl_contract import Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient

NETWORK = ("server/pirl_server/model/", "server/pirl_server/algorithm/")
WARM_UP = 2
SETTLE_S = 0.3
"""after the chunk has come: what the server does behind it"""


def trace() -> Trip:
    """Infer a few times, with the outcome of one step each, and trace the last."""
    trip = Trip(network=NETWORK, periodic=("health",))
    with trip.traceable(), tiny_server() as (api, contract, _):
        client = PolicyClient(f"127.0.0.1:{api.state.services.grpc_port}", "arm-1", timeout_s=60.0)
        try:
            instruction = client.info().instructions[0]
            client.start_episode(contract, instruction)
            chunk = client.infer(_observation(contract, instruction, 0))
            for number in range(1, WARM_UP):
                chunk = client.infer(_observation(contract, instruction, number), [_outcome(chunk.chunk_id, contract)])
            observation, outcomes = _observation(contract, instruction, WARM_UP), [_outcome(chunk.chunk_id, contract)]
            with trip.recording():
                client.infer(observation, outcomes)
                time.sleep(SETTLE_S)
        finally:
            client.close()
    return trip


def _observation(contract: Contract, instruction: str, number: int) -> Observation:
    images = {each.name: np.full((each.height, each.width, 3), number, np.uint8) for each in contract.cameras}
    state = np.full(contract.state_dim, 0.01 * number, np.float32)
    return Observation(images, state, instruction, capture_time_ns=time.monotonic_ns())


def _outcome(chunk_id: str, contract: Contract) -> StepOutcome:
    executed, state = np.zeros(contract.action_dim, np.float32), np.zeros(contract.state_dim, np.float32)
    return StepOutcome(chunk_id, 0, executed, state, time_ns=time.time_ns())
