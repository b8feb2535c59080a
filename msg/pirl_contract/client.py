"""The robot's end of the wire: a `Policy` over gRPC. numpy, grpcio and protobuf only.

One client serves one robot and one thread at a time. A lost server is a ConnectionError on each call until it is back:
the client never waits longer than `timeout_s` and never retries an observation, which would be old by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grpc

from pirl_contract import codec
from pirl_contract.connection import MAX_MESSAGE_BYTES
from pirl_contract.contract import Contract
from pirl_contract.schema import ActionChunk, Observation, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc

Mode = Literal["", "deterministic", "explore"]
Label = Literal["unlabeled", "success", "failure"]

_MODES = {
    "": pb.SAMPLING_MODE_UNSPECIFIED,
    "deterministic": pb.SAMPLING_MODE_DETERMINISTIC,
    "explore": pb.SAMPLING_MODE_EXPLORE,
}
_LABELS = {"unlabeled": pb.OUTCOME_UNLABELED, "success": pb.OUTCOME_SUCCESS, "failure": pb.OUTCOME_FAILURE}


@dataclass(frozen=True)
class PolicyInfo:
    """What the server serves under one alias."""

    contract: Contract
    policy_version: str
    policy_name: str
    horizon: int
    execute_horizon: int
    instructions: tuple[str, ...]
    server_version: str


@dataclass(frozen=True)
class EpisodeReceipt:
    """Where the server put an episode (relative to its store; empty when discarded) and how many steps it holds."""

    path: str
    steps: int


class PolicyClient:
    """Policy over the network. See the module's docstring for threads and failures.

    Raises from every call: ConnectionError (server unreachable or gone), TimeoutError (later than `timeout_s`),
    ValueError (the server refused, its reason is the text).
    """

    def __init__(
        self, address: str, robot_id: str = "robot", timeout_s: float = 2.0, mode: Mode = "", alias: str = ""
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode '{mode}' is not known: use 'deterministic', 'explore' or ''")
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = policy_pb2_grpc.PolicyServiceStub(self._channel)
        self._address, self._robot_id = address, robot_id
        self.timeout_s = timeout_s
        """longest wait of each call; may be changed between two"""
        self._mode, self._alias = _MODES[mode], alias
        self._sequence = 0
        self._episode_id = ""
        self._contract_hash = ""

    def info(self) -> PolicyInfo:
        """Ask what is served; also fixes the contract that later observations are checked against."""
        reply = self._call(self._stub.GetInfo, pb.GetInfoRequest(alias=self._alias))
        contract = Contract.from_json(reply.contract_json)
        self._contract_hash = contract.hash
        return PolicyInfo(
            contract=contract,
            policy_version=reply.policy_version,
            policy_name=reply.policy_name,
            horizon=reply.horizon,
            execute_horizon=reply.execute_horizon,
            instructions=tuple(reply.instructions),
            server_version=reply.server_version,
        )

    def start_episode(self, contract: Contract, instruction: str, metadata: Mapping[str, str] | None = None) -> str:
        """Begin a logged episode and return its id. ValueError when the server's contract differs: it says where."""
        request = pb.StartEpisodeRequest(
            robot_id=self._robot_id,
            contract_json=contract.to_json(),
            instruction=instruction,
            alias=self._alias,
            mode=self._mode,
            metadata=dict(metadata or {}),
        )
        self._episode_id = self._call(self._stub.StartEpisode, request).episode_id
        self._contract_hash = contract.hash
        return self._episode_id

    def infer(self, observation: Observation, outcomes: Iterable[StepOutcome] = ()) -> ActionChunk:
        """Return the chunk for this observation; report what became of earlier steps on the way."""
        self._sequence += 1
        request = pb.InferRequest(
            robot_id=self._robot_id,
            episode_id=self._episode_id,
            sequence=self._sequence,
            contract_hash=self._contract_hash,
            alias=self._alias,
            mode=self._mode,
            observation=codec.observation_to_proto(observation),
            outcomes=codec.outcomes_to_proto(outcomes),
        )
        reply = self._call(self._stub.Infer, request)
        if reply.sequence != self._sequence:
            raise ValueError(f"the server answered request {reply.sequence}, asked was {self._sequence}")
        return codec.chunk_from_proto(reply)

    def end_episode(
        self,
        outcome: Label,
        label_source: str,
        end_reason: str,
        discard: bool = False,
        outcomes: Iterable[StepOutcome] = (),
    ) -> EpisodeReceipt:
        """Close the episode: it is published (or dropped) when this returns; when it raises it can be ended again."""
        if outcome not in _LABELS:
            raise ValueError(f"outcome '{outcome}' is not known: use {', '.join(map(repr, _LABELS))}")
        request = pb.EndEpisodeRequest(
            episode_id=self._episode_id,
            outcome=_LABELS[outcome],
            label_source=label_source,
            end_reason=end_reason,
            discard=discard,
            outcomes=codec.outcomes_to_proto(outcomes),
        )
        reply = self._call(self._stub.EndEpisode, request)
        self._episode_id = ""
        return EpisodeReceipt(path=reply.path, steps=reply.steps)

    def reset(self) -> None:
        """Forget the episode; what follows is not logged until `start_episode`."""
        self._episode_id = ""

    def close(self) -> None:
        """Close the channel. Calling it twice changes nothing."""
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code is grpc.StatusCode.UNAVAILABLE:
                raise ConnectionError(f"policy server {self._address} is not reachable: {details}") from None
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError(f"policy server {self._address} took longer than {self.timeout_s} s") from None
            if code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise TimeoutError(f"policy server {self._address} gave this request up: {details}") from None
            raise ValueError(f"policy server refused ({code.name.lower()}): {details}") from None
