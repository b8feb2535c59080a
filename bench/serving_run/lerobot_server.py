"""lerobot 0.6.1's PolicyServer, stock but for the policy: zeros instead of `_predict_action_chunk`'s network."""

from __future__ import annotations

import time
from concurrent import futures
from typing import Any

import grpc
import torch
from lerobot.async_inference.configs import PolicyServerConfig
from lerobot.async_inference.helpers import TimedAction, TimedObservation
from lerobot.async_inference.policy_server import PolicyServer
from lerobot.transport import services_pb2_grpc
from payloads import ACTION_DIM, HORIZON
from worker import work

SERVERS = []


class Zeros(PolicyServer):
    """Its own wire, queue, pickling and chunk of timed actions; no preparation of images, which it would also do."""

    def __init__(self, config: PolicyServerConfig, model_ms: float) -> None:
        super().__init__(config)
        self.model_ms = model_ms

    def _predict_action_chunk(self, observation_t: TimedObservation) -> list[TimedAction]:
        if self.model_ms:
            time.sleep(self.model_ms / 1e3)
        self.last_processed_obs = observation_t
        actions = list(torch.zeros(HORIZON, ACTION_DIM))
        return self._time_action_chunk(observation_t.get_timestamp(), actions, observation_t.get_timestep())


def open_(payload: str, model_ms: float, floor_ms: float = 0.0) -> dict[str, int]:
    """Serve as its `serve` does: four threads, default options. `floor_ms` is its `inference_latency`."""
    servicer = Zeros(PolicyServerConfig(inference_latency=floor_ms / 1e3), model_ms)
    server: Any = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    SERVERS.append(server)
    return {"port": port}


if __name__ == "__main__":
    torch.set_num_threads(1)
    work({"open": open_})
