"""A policy server whose answers a test decides: real gRPC, no model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from pirl_contract import ActionChunk, Contract, Observation, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec

EXECUTE = 2


class ScriptedServer(policy_pb2_grpc.PolicyServiceServicer):
    """Answers every observation with the same push along x and keeps what it was told."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.observations: list[Observation] = []
        self.outcomes: list[StepOutcome] = []
        self.ends: list[pb.EndEpisodeRequest] = []
        self.starts: list[pb.StartEpisodeRequest] = []
        self.labels: list[pb.LabelEpisodeRequest] = []

    push = 0.03
    """m along x per action"""

    def action(self, observation: Observation) -> np.ndarray:
        """The action [4] to repeat."""
        return np.array([self.push, 0, 0, 1], np.float32)

    def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoReply:
        return pb.GetInfoReply(
            contract_json=self.contract.to_json(), policy_version="v1", horizon=4, execute_horizon=EXECUTE
        )

    def StartEpisode(self, request: pb.StartEpisodeRequest, context: Any) -> pb.StartEpisodeReply:
        self.starts.append(request)
        return pb.StartEpisodeReply(episode_id=f"episode{len(self.starts)}", policy_version="v1")

    def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferReply:
        self.observations.append(codec.observation_from_proto(request.observation, request.robot_id))
        self.outcomes += codec.outcomes_from_proto(request.outcomes)
        actions = np.tile(self.action(self.observations[-1]), (EXECUTE + 2, 1))
        chunk = ActionChunk(actions, 0.05, f"c{len(self.observations)}", "v1", 0, EXECUTE)
        return codec.chunk_to_proto(chunk, request.sequence)

    def EndEpisode(self, request: pb.EndEpisodeRequest, context: Any) -> pb.EndEpisodeReply:
        self.ends.append(request)
        self.outcomes += codec.outcomes_from_proto(request.outcomes)
        return pb.EndEpisodeReply(path=f"{request.episode_id}.zarr", steps=len(self.outcomes))

    def LabelEpisode(self, request: pb.LabelEpisodeRequest, context: Any) -> pb.LabelEpisodeReply:
        ended = [end for end in self.ends if end.episode_id == request.episode_id and not end.discard]
        if not ended:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no episode '{request.episode_id}'")
        self.labels.append(request)
        return pb.LabelEpisodeReply(previous=ended[-1].outcome)


@contextmanager
def serving(service: ScriptedServer) -> Iterator[str]:
    """Serve on a free port; yields the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
