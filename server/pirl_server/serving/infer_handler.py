"""One Infer request: checked, queued, its result returned; the same for unary calls and sessions."""

from __future__ import annotations

import itertools
import secrets
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from importlib.metadata import version

from pirl_contract import ActionChunk, Contract, Observation
from pirl_contract.names import check_robot_id
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_contract.wire.grpc_options import MAX_MESSAGE_BYTES, WIRE
from pirl_contract.wire.shared_memory import host_id, read_shared
from pirl_server.serving.camera_codecs import NOT_ENCODED, CameraCodecs, Encoded
from pirl_server.serving.episode_builder import EpisodeBuilder
from pirl_server.serving.episode_handler import EpisodeCalls, no_episode
from pirl_server.serving.errors import ExpiredError
from pirl_server.serving.exploration import Exploration
from pirl_server.serving.grpc_status import ContractMismatchError
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.request_queue import Inference
from pirl_server.serving.router import Dispatcher, Router

# chunk ids: unique without asking the system for random bytes with each chunk
_PROCESS, _NUMBERS = secrets.token_hex(8), itertools.count()
BLINDED = "blinded"
"""in place of a version that must not be seen yet: see `registry.ab_trials`"""
ENCODINGS = (pb.IMAGE_ENCODING_RGB8, pb.IMAGE_ENCODING_JPEG, pb.IMAGE_ENCODING_PNG)


@dataclass(frozen=True)
class Caller:
    """Where a request came from."""

    address: str
    """in gRPC's words"""
    session: str = ""
    """unique per session; empty for a unary call"""


@dataclass(slots=True)  # not frozen: for each request that costs microseconds
class PendingChunk:
    """A request that waits for the device."""

    request: pb.InferRequest
    observation: Observation
    """as the policy sees it"""
    encoded: Encoded
    episode: EpisodeBuilder | None
    received_ns: int
    """server's monotonic clock"""
    decode_ms: float
    caller: Caller
    answer: Future[Inference]


class InferHandler:
    """Asks the engine. Any thread."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        episodes: EpisodeCalls,
        recorder: Recorder,
        exploration: Exploration,
        router: Router,
        codecs: CameraCodecs | None,
    ) -> None:
        self._dispatcher, self._episodes, self._recorder, self._router = dispatcher, episodes, recorder, router
        self._codecs = codecs
        self._attendance, self._exploration = dispatcher.connections, exploration
        self._host_id = host_id()
        self._read_shared = read_shared if self._host_id else None

    def get_info(self, request: pb.GetInfoRequest) -> pb.GetInfoReply:
        """Say what is served; never waits for inference."""
        if request.robot_id:
            check_robot_id(request.robot_id)
        policy = self._dispatcher.policy(request.robot_id, request.alias)
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

    def start_episode(self, request: pb.StartEpisodeRequest) -> pb.StartEpisodeReply:
        """Open an episode; which version drives it is decided here."""
        policy = self._dispatcher.policy(request.robot_id, request.alias)
        instruction = self._dispatcher.instruction(request.instruction, policy)
        reply = self._episodes.start(request, policy, self._exploration.begin, instruction)
        self._router.begin(reply.episode_id, request.robot_id, request.alias)
        version = self._dispatcher.policy(request.robot_id, request.alias, reply.episode_id).version
        reply.policy_version = BLINDED if self._router.blinded(reply.episode_id) else version
        return reply

    def begin(self, request: pb.InferRequest, caller: Caller, deadline: float) -> PendingChunk:
        """Check the request and queue it; outcomes are kept even when the inference then fails.

        `deadline` is a `time.monotonic()` value. Raises what makes a rejection: ValueError for outcomes without an
        episode, ExpiredError where the deadline passed while the images were decoded.
        """
        received_ns, polling = time.monotonic_ns(), not caller.session
        check_robot_id(request.robot_id)
        self._dispatcher.check(request.robot_id, polling=polling)
        policy = self._dispatcher.policy(request.robot_id, request.alias, request.episode_id)
        contract = policy.contract
        if request.contract_hash != contract.hash:
            raise _mismatch(request, contract)
        try:
            call = codec.decode_infer(request, contract, self._read_shared, deadline)
        except TimeoutError as error:
            raise ExpiredError(str(error)) from None
        observation, encoded = call.observation, NOT_ENCODED
        if self._codecs is not None:
            observation, encoded = self._codecs.apply(observation, request.observation.images)
        if not observation.instruction.strip():
            observation = replace(observation, instruction=self._dispatcher.instruction("", policy))
        episode = None
        try:
            if request.episode_id:
                episode = self._recorder.take_outcomes(request.episode_id, observation, call.outcomes)
            elif call.outcomes:
                raise ValueError("outcomes without an episode id can't be logged; call StartEpisode first")
        except KeyError:
            raise no_episode(request.episode_id) from None
        self._attendance.seen(request.robot_id, caller.address, polling=polling)
        default = episode.start.explore if episode else self._exploration.default
        decode_ms = (time.monotonic_ns() - received_ns) / 1e6
        answer = self._dispatcher.submit(
            observation,
            deadline=deadline,
            explore=default if call.explore is None else call.explore,
            sequence=request.sequence,
            session=caller.session,
            continuation=call.previous_chunk,
            alias=request.alias,
            episode_id=request.episode_id,
        )
        return PendingChunk(request, observation, encoded, episode, received_ns, decode_ms, caller, answer)

    def finish(self, pending: PendingChunk) -> pb.InferReply:
        """Return the reply when the engine has answered, waiting for it. Raises what makes a rejection.

        Raises ExpiredError when the client had given up.
        """
        try:
            inference = self._dispatcher.check_actions(pending.answer.result())
        except CancelledError:
            raise ExpiredError("cancelled by the client before inference") from None
        robot_id, caller = pending.request.robot_id, pending.caller
        if not caller.session:
            self._attendance.check_stop(robot_id)  # it may have come while the device was busy
        began_ns = time.monotonic_ns()
        sample, policy = inference.sample, inference.policy
        chunk = ActionChunk(
            actions=sample.actions,
            dt_s=1.0 / policy.contract.rate_hz,
            chunk_id=f"{_PROCESS}{next(_NUMBERS):016x}",
            policy_version=policy.version,
            seed=sample.seed,
            execute_horizon=policy.execute_horizon,
            start_time_ns=pending.observation.capture_time_ns,
            timings_ms={"decode": pending.decode_ms, "queue": inference.queue_ms, "infer": inference.infer_ms},
            continued=sample.continued,
        )
        reply = codec.chunk_to_proto(chunk, pending.request.sequence)
        done_ns = time.monotonic_ns()
        timings = {"encode": (done_ns - began_ns) / 1e6, "total": (done_ns - pending.received_ns) / 1e6}
        if pending.episode:
            seen, encoded = pending.observation, pending.encoded
            self._recorder.add_call(pending.episode, seen, sample, chunk, timings["total"], encoded)
        if self._router.blinded(pending.request.episode_id):
            reply.policy_version = BLINDED
        self._attendance.seen(robot_id, caller.address, reply.policy_version, polling=not caller.session)
        reply.timings_ms.update(timings)
        reply.sent_time_ns, reply.received_time_ns = pending.request.sent_time_ns, pending.received_ns
        reply.replied_time_ns = time.monotonic_ns()
        return reply


def _mismatch(request: pb.InferRequest, contract: Contract) -> ContractMismatchError:
    return ContractMismatchError(
        f"contract hash is '{request.contract_hash}', the policy's {contract.hash}:"
        " get its contract with GetInfo; StartEpisode reports the differences"
    )
