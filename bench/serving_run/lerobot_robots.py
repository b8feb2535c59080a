"""Robots as lerobot 0.6.1's RobotClient talks: its pickling, its channel, actions asked for in advance."""

from __future__ import annotations

import itertools
import time

import grpc
import torch
from lerobot.async_inference.helpers import TimedObservation
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import (
    bytes_to_python_object,
    grpc_channel_options,
    python_object_to_bytes,
    send_bytes_in_chunks,
)
from payloads import HORIZON, INSTRUCTION, PAYLOADS
from robots import Ask, Robots
from worker import work

TIMESTEPS = itertools.count()


def lerobot(port: int, payload: str, number: int) -> Ask:
    sizes = PAYLOADS[payload]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", grpc_channel_options(initial_backoff="0.0333s"))
    stub = services_pb2_grpc.AsyncInferenceStub(channel)
    stub.Ready(services_pb2.Empty())
    seen = {**sizes.images(), "state": sizes.state(), "task": INSTRUCTION}

    def ask() -> None:
        # must_go and a new timestep: without them it filters observations that resemble the last
        waiting = stub.GetActions.future(services_pb2.Empty(), timeout=20)
        observation = TimedObservation(time.time(), next(TIMESTEPS), seen, must_go=True)
        stub.SendObservations(send_bytes_in_chunks(python_object_to_bytes(observation), services_pb2.Observation))
        data = waiting.result().data
        if not data:
            raise TimeoutError("an empty reply: another robot took the observation, or its place")
        assert len(bytes_to_python_object(data)) == HORIZON

    return ask


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(Robots({"lerobot": lerobot}).handlers())
