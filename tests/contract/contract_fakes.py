"""The smallest honest `Env` and `Policy`, and a gRPC service that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from pirl_contract import ActionChunk, Camera, Contract, Field, Observation, StepResult
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec

CONTRACT = Contract(
    robot="fake",
    cameras=(Camera("wrist", 4, 5),),
    state=(Field("q", "rad", -1.0, 1.0), Field("grip", "m", 0.0, 0.04)),
    action=(Field("dq", "rad", -0.1, 0.1),),
    rate_hz=10.0,
)


@dataclass
class FakeEnv:
    """Counts its steps in state[0]; succeeds at `success_at`, ends there if `ends` or after `limit` steps."""

    success_at: int = 10**6
    ends: bool = True
    limit: int = 20
    contract: Contract = CONTRACT
    played: list[float] = field(default_factory=list)
    observed: int = 0
    _seed: int | None = None

    def reset(self, seed: int) -> Observation:
        self.played, self._seed = [], seed
        return self._now()

    def step(self, action: np.ndarray) -> StepResult:
        if self._seed is None:
            raise RuntimeError("step without a running episode: call reset first")
        if action.shape != (1,) or not np.isfinite(action).all():
            raise ValueError(f"an action is one finite number, got {action}")
        self.played.append(float(action[0]))
        success = len(self.played) == self.success_at
        terminated, truncated = success and self.ends, len(self.played) >= self.limit
        if terminated or truncated:
            self._seed = None
        return StepResult(1.0, terminated, truncated and not terminated, success)

    def observe(self) -> Observation:
        self.observed += 1
        return self._now()

    def _now(self) -> Observation:
        state = np.array([len(self.played), self._seed or 0], np.float32)
        return Observation({"wrist": np.zeros((4, 5, 3), np.uint8)}, state, "count")

    def close(self) -> None:
        self._seed = None


@dataclass
class FakePolicy:
    """Its action is 100 times the call's number plus the place in the chunk, so that a test sees what was played."""

    horizon: int = 5
    execute_horizon: int = 3
    versions: tuple[str, ...] = ("v1",)
    calls: int = 0
    resets: int = 0

    def infer(self, observation: Observation) -> ActionChunk:
        if observation.state.shape != (2,):
            raise ValueError(f"state has {observation.state.size} entries, the contract 2")
        actions = (100 * self.calls + np.arange(self.horizon, dtype=np.float32))[:, None]
        version = self.versions[min(self.calls, len(self.versions) - 1)]
        self.calls += 1
        return ActionChunk(
            actions.astype(np.float32), 0.1, f"chunk-{self.calls}", version, 0, self.execute_horizon,
            start_time_ns=observation.capture_time_ns,
        )  # fmt: skip

    def reset(self) -> None:
        self.resets += 1


Answer = Callable[[Any, Any], Any]


def answer_chunk(request: Any, context: Any) -> Any:
    chunk = ActionChunk(np.ones((5, 1), np.float32), 0.1, "c", "v1", 7, 3, timings_ms={"total": 1.0})
    return codec.chunk_to_proto(chunk, request.sequence)


@dataclass
class ScriptedService(policy_pb2_grpc.PolicyServiceServicer):  # type: ignore[misc]
    """Answers Infer by `answer`; keeps the requests."""

    answer: Answer = answer_chunk
    requests: list[Any] = field(default_factory=list)
    answer_info: Callable[[Any], object] = lambda context: None
    """looks at the context of each GetInfo"""

    def GetInfo(self, request: Any, context: Any) -> Any:
        self.answer_info(context)
        return pb.GetInfoReply(contract_json=CONTRACT.to_json(), policy_version="v1", horizon=5, execute_horizon=3)

    def StartEpisode(self, request: Any, context: Any) -> Any:
        return pb.StartEpisodeReply(episode_id="e1")

    def EndEpisode(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if request.label_source == "gossip":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "label_source")
        return pb.EndEpisodeReply(path="p", steps=4)

    def Infer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return self.answer(request, context)


@contextmanager
def serving(service: ScriptedService, port: int = 0) -> Iterator[str]:
    """Serve on this loopback port (0: a free one); gives the address."""
    server = grpc.server(ThreadPoolExecutor(2))
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(service, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
