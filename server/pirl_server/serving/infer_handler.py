"""One Infer request: checked, queued, its result returned; the same for unary calls and sessions."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from pirl_contract import ActionChunk, Observation
from pirl_contract.names import check_robot_id
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_contract.wire.grpc_options import MAX_MESSAGE_BYTES, WIRE
from pirl_contract.wire.shared_memory import host_id
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine, Inference
from pirl_server.serving.episode_builder import EpisodeBuilder
from pirl_server.serving.episode_handler import EpisodeCalls
from pirl_server.serving.errors import ExpiredError, NoPolicyError
from pirl_server.serving.grpc_status import ContractMismatchError
from pirl_server.serving.router import Router
from pirl_server.serving.shared_memory import read_shared

ENCODINGS = (pb.IMAGE_ENCODING_RGB8, pb.IMAGE_ENCODING_JPEG, pb.IMAGE_ENCODING_PNG)


@dataclass(frozen=True)
class Caller:
    """Where a request came from."""

    address: str
    """in gRPC's words"""
    session: str = ""
    """unique per session; empty for a unary call"""


@dataclass(frozen=True)
class PendingChunk:
    """A request that waits for the device."""

    request: Any
    observation: Observation
    episode: EpisodeBuilder | None
    received_ns: int
    """server's monotonic clock"""
    decode_ms: float
    caller: Caller
    answer: Future[Inference]


class InferHandler:
    """Asks the engine. `explore` is the sampling mode of robots that ask for none. Any thread."""

    def __init__(
        self, engine: Engine, episodes: EpisodeCalls, attendance: RobotConnections, explore: bool, router: Router
    ) -> None:
        self._engine, self._episodes, self._attendance, self._router = engine, episodes, attendance, router
        self.explore = explore
        self._host_id = host_id()

    def get_info(self, request: Any) -> Any:
        """Say what is served; never waits for inference."""
        if request.robot_id:
            check_robot_id(request.robot_id)
        policy = self.policy(request.alias, request.robot_id)
        shared = (pb.IMAGE_ENCODING_SHARED_MEMORY,) if self._host_id else ()
        return pb.GetInfoReply(
            contract_json=policy.contract.to_json(),
            contract_hash=policy.contract.hash,
            policy_version=policy.version,
            policy_name=policy.name,
            horizon=policy.horizon,
            execute_horizon=policy.execute_horizon,
            server_version=version("pirl"),
            instructions=policy.instructions,
            wire=WIRE,
            encodings=[*ENCODINGS, *shared],
            max_message_bytes=MAX_MESSAGE_BYTES,
            host_id=self._host_id,
            continuations=[number for method, number in codec.CONTINUATIONS.items() if method in policy.continuations],
        )

    def start_episode(self, request: Any) -> Any:
        """Open an episode; which version drives it is decided here."""
        reply = self._episodes.start(request, self.policy(request.alias, request.robot_id), self.explore)
        self._router.begin(reply.episode_id, request.robot_id, request.alias)
        reply.policy_version = self.policy(request.alias, request.robot_id, reply.episode_id).version
        return reply

    def policy(self, alias: str, robot_id: str, episode_id: str = "") -> ServedPolicy:
        """Return who would answer this robot now. Raises NotFoundError for an alias that names nothing."""
        chosen, current = self._router.version(robot_id, alias, episode_id), self._engine.current
        if current is None:
            raise NoPolicyError("no policy is loaded yet")
        return self._engine.loaded.get(chosen or "", current)  # one that was just unloaded answers nobody any more

    def begin(self, request: Any, caller: Caller, deadline: float) -> PendingChunk:
        """Check the request and queue it; outcomes are kept even when the inference then fails.

        `deadline` is a `time.monotonic()` value. Raises what makes a refusal.
        """
        received_ns = time.monotonic_ns()
        check_robot_id(request.robot_id)
        if polling := not caller.session:
            self._attendance.check_stop(request.robot_id)
        outcomes = codec.outcomes_from_proto(request.outcomes)
        policy = self.policy(request.alias, request.robot_id, request.episode_id)
        self._check_contract(request, policy)
        observation = codec.observation_from_proto(request.observation, request.robot_id, self._read_shared())
        policy.contract.check(observation)
        continued = request.HasField("continuation")
        continuation = codec.continuation_from_proto(request.continuation) if continued else None
        episode = self._episodes.of_request(request.episode_id, observation, outcomes)
        self._attendance.seen(request.robot_id, caller.address, polling=polling)
        explore = self._episodes.explores(request.mode, episode.start.explore if episode else self.explore)
        decode_ms = (time.monotonic_ns() - received_ns) / 1e6
        submit = partial(
            self._engine.submit,
            observation,
            explore=explore,
            robot_id=request.robot_id,
            sequence=request.sequence,
            session=caller.session,
            deadline=deadline,
            continuation=continuation,
        )
        answer = self._router.ask(
            lambda version: submit(version=version), request.robot_id, request.alias, request.episode_id
        )
        return PendingChunk(request, observation, episode, received_ns, decode_ms, caller, answer)

    def finish(self, pending: PendingChunk) -> Any:
        """Return the reply when the engine has answered, waiting for it. Raises what makes a refusal."""
        try:
            inference = pending.answer.result()
        except CancelledError:
            raise ExpiredError("cancelled by the client before inference") from None
        robot_id, caller = pending.request.robot_id, pending.caller
        if not caller.session:
            self._attendance.check_stop(robot_id)  # it may have come while the device was busy
        began_ns = time.monotonic_ns()
        chunk = _chunk(pending, inference)
        reply = codec.chunk_to_proto(chunk, pending.request.sequence)
        done_ns = time.monotonic_ns()
        timings = {"encode": (done_ns - began_ns) / 1e6, "total": (done_ns - pending.received_ns) / 1e6}
        if pending.episode:
            self._episodes.answered(pending.episode, pending.observation, inference.sample, chunk, timings["total"])
        self._attendance.seen(robot_id, caller.address, chunk.policy_version, polling=not caller.session)
        reply.timings_ms.update(timings)
        reply.sent_time_ns, reply.received_time_ns = pending.request.sent_time_ns, pending.received_ns
        reply.replied_time_ns = time.monotonic_ns()
        return reply

    def _read_shared(self) -> Any:
        return read_shared if self._host_id else None

    def _check_contract(self, request: Any, policy: ServedPolicy) -> None:
        if request.contract_hash != policy.contract.hash:
            raise ContractMismatchError(
                f"contract hash is '{request.contract_hash}', the policy's {policy.contract.hash}:"
                " get its contract with GetInfo; StartEpisode reports the differences"
            )
        # before any picture is opened: what is of the wrong size is not worth it
        policy.contract.check_sizes(codec.image_sizes(request.observation))


def _chunk(pending: PendingChunk, inference: Inference) -> ActionChunk:
    sample, policy = inference.sample, inference.policy
    if not np.isfinite(sample.actions).all():
        raise RuntimeError(f"policy {policy.version} sampled actions that are not finite, seed {sample.seed}")
    return ActionChunk(
        actions=sample.actions,
        dt_s=1.0 / policy.contract.rate_hz,
        chunk_id=secrets.token_hex(16),
        policy_version=policy.version,
        seed=sample.seed,
        execute_horizon=policy.execute_horizon,
        start_time_ns=pending.observation.capture_time_ns,
        timings_ms={"decode": pending.decode_ms, "queue": inference.queue_ms, "infer": inference.infer_ms},
        continued=sample.continued,
    )
