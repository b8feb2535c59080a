"""A policy server without a policy: circles of the tool, at once or after a wait. Real gRPC, a process of its own.

python policy_server.py PROFILE PORT ACTIONS [WAIT_MS]        prints "ready"; ends with its standard input
"""

from __future__ import annotations

import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from pirl_contract import ActionChunk, Contract, codec
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_ros.profile import load_profile

RADIUS_M, TURN_S = 0.03, 2.0


class CircleServer(policy_pb2_grpc.PolicyServiceServicer):
    """Answers with the next `actions` steps of a circle in x and y."""

    def __init__(self, contract: Contract, actions: int, wait_ms: float) -> None:
        self._contract, self._actions, self._wait_ms = contract, actions, wait_ms
        self._step = 0

    def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoReply:  # noqa: N802
        return pb.GetInfoReply(
            contract_json=self._contract.to_json(),
            policy_version="circle",
            horizon=self._actions,
            execute_horizon=self._actions,
        )

    def StartEpisode(self, request: pb.StartEpisodeRequest, context: Any) -> pb.StartEpisodeReply:  # noqa: N802
        self._step = 0
        return pb.StartEpisodeReply(episode_id=uuid.uuid4().hex[:8], policy_version="circle")

    def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferReply:  # noqa: N802
        began = time.monotonic()
        time.sleep(self._wait_ms / 1e3)
        dt_s = 1.0 / self._contract.rate_hz
        angle = 2 * np.pi * (self._step + np.arange(self._actions)) * dt_s / TURN_S
        self._step += self._actions
        speed = RADIUS_M * 2 * np.pi / TURN_S * dt_s
        still = np.zeros_like(angle)
        actions = np.stack([speed * np.cos(angle), speed * np.sin(angle), still, still + 1.0], axis=1)
        chunk = ActionChunk(
            actions=actions.astype(np.float32),
            dt_s=dt_s,
            chunk_id=uuid.uuid4().hex[:8],
            policy_version="circle",
            seed=0,
            execute_horizon=self._actions,
            start_time_ns=request.observation.capture_time_ns,
            timings_ms={"total": (time.monotonic() - began) * 1e3},
        )
        return codec.chunk_to_proto(chunk, request.sequence)

    def EndEpisode(self, request: pb.EndEpisodeRequest, context: Any) -> pb.EndEpisodeReply:  # noqa: N802
        return pb.EndEpisodeReply(path="", steps=0)


def main() -> None:
    profile, port, actions = sys.argv[1:4]
    wait_ms = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    server = grpc.server(ThreadPoolExecutor(4))
    service = CircleServer(load_profile(profile).contract, int(actions), wait_ms)
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(service, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
