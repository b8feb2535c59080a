"""Builds requests and parses replies, independent of transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pirl_contract.clock_sync import ClockSync
from pirl_contract.contract import Contract
from pirl_contract.names import check_robot_id
from pirl_contract.schema import ActionChunk, Observation, PreviousChunk, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_contract.wire.grpc_options import WIRE
from pirl_contract.wire.image_codec import WireImage
from pirl_contract.wire.image_encoder import Encoding, ImageSender

Mode = Literal["", "deterministic", "explore"]
Label = Literal["unlabeled", "success", "failure"]

_MODES = {
    "": pb.SAMPLING_MODE_UNSPECIFIED,
    "deterministic": pb.SAMPLING_MODE_DETERMINISTIC,
    "explore": pb.SAMPLING_MODE_EXPLORE,
}
_LABELS: dict[Label, pb.Outcome] = {
    "unlabeled": pb.OUTCOME_UNLABELED,
    "success": pb.OUTCOME_SUCCESS,
    "failure": pb.OUTCOME_FAILURE,
}


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
    continuations: tuple[str, ...] = ()
    """ways to continue a chunk that this policy knows"""


@dataclass(frozen=True)
class EpisodeReceipt:
    """Where the server put an episode (relative to its store; empty when discarded) and how many steps it holds."""

    path: str
    steps: int


class RequestBuilder:
    """The state of one robot's conversation: sequence, episode, contract, images, clock. One thread at a time."""

    def __init__(
        self,
        robot_id: str,
        mode: Mode,
        alias: str,
        encoding: Encoding,
        resize_images: bool,
        traceparent: Callable[[], str] | None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode '{mode}' is not known: use 'deterministic', 'explore' or ''")
        check_robot_id(robot_id)
        self._robot_id, self._mode, self._alias, self._traceparent = robot_id, _MODES[mode], alias, traceparent
        self._sender = ImageSender(encoding, resize_images)
        self.clock = ClockSync()
        self._sequence, self._episode_id, self._contract_hash = 0, "", ""
        self._stop = ""

    def get_info(self) -> pb.GetInfoRequest:
        """Ask what is served."""
        return pb.GetInfoRequest(alias=self._alias, robot_id=self._robot_id, wire=WIRE)

    def connected(self, reply: pb.GetInfoReply) -> None:
        """A connection stands, to the same server or another one."""
        self._sender.agree(reply)

    def info(self, reply: pb.GetInfoReply) -> PolicyInfo:
        """Read what is served; later observations are checked against its contract, and a stop is lifted."""
        self._stop = ""
        contract = Contract.from_json(reply.contract_json)
        self._agree(contract)
        self._sender.agree(reply)
        known = codec.CONTINUATIONS.items()
        return PolicyInfo(
            contract=contract,
            policy_version=reply.policy_version,
            policy_name=reply.policy_name,
            horizon=reply.horizon,
            execute_horizon=reply.execute_horizon,
            instructions=tuple(reply.instructions),
            server_version=reply.server_version,
            continuations=tuple(method for method, number in known if number in reply.continuations),
        )

    def start_episode(
        self, contract: Contract, instruction: str, metadata: Mapping[str, str]
    ) -> pb.StartEpisodeRequest:
        """Ask for a logged episode."""
        return pb.StartEpisodeRequest(
            robot_id=self._robot_id,
            contract_json=contract.to_json(),
            instruction=instruction,
            alias=self._alias,
            mode=self._mode,
            metadata=dict(metadata),
        )

    def started(self, contract: Contract, reply: pb.StartEpisodeReply) -> str:
        """Remember the episode and return its id."""
        self._episode_id = reply.episode_id
        self._agree(contract)
        return self._episode_id

    def infer(
        self, observation: Observation, outcomes: Iterable[StepOutcome], continuation: PreviousChunk | None
    ) -> tuple[pb.InferRequest, dict[str, WireImage]]:
        """Ask for a chunk; the images are apart, so that they are copied once. Raises ValueError after a stop."""
        self._check_stop()
        wire_images = self._sender.wire_images(observation.images)
        self._sequence += 1
        request = pb.InferRequest(
            robot_id=self._robot_id,
            episode_id=self._episode_id,
            sequence=self._sequence,
            contract_hash=self._contract_hash,
            alias=self._alias,
            mode=self._mode,
            observation=codec.state_to_proto(observation),
            outcomes=codec.outcomes_to_proto(outcomes),
            continuation=codec.continuation_to_proto(continuation) if continuation else None,
            traceparent=self._traceparent() if self._traceparent else "",
            sent_time_ns=time.monotonic_ns(),
        )
        return request, wire_images

    def chunk(self, reply: pb.InferReply) -> ActionChunk:
        """Read a chunk. Raises ValueError when it answers another request, is malformed or comes after a stop."""
        self._check_stop()
        returned_ns = time.monotonic_ns()
        if reply.sequence != self._sequence:
            raise ValueError(f"the server replied to request {reply.sequence}, expected {self._sequence}")
        chunk = codec.chunk_from_proto(reply)
        if reply.received_time_ns:
            self.clock.add(reply.sent_time_ns, reply.received_time_ns, reply.replied_time_ns, returned_ns)
        return chunk

    def end_episode(
        self, outcome: Label, label_source: str, end_reason: str, discard: bool, outcomes: Iterable[StepOutcome]
    ) -> pb.EndEpisodeRequest:
        """Ask to close the episode."""
        return pb.EndEpisodeRequest(
            episode_id=self._episode_id,
            outcome=_outcome(outcome),
            label_source=label_source,
            end_reason=end_reason,
            discard=discard,
            outcomes=codec.outcomes_to_proto(outcomes),
        )

    def ended(self, reply: pb.EndEpisodeReply) -> EpisodeReceipt:
        """Forget the episode: the server has it."""
        self.reset()
        return EpisodeReceipt(path=reply.path, steps=reply.steps)

    def report_outcomes(self, outcomes: Iterable[StepOutcome]) -> pb.ReportOutcomesRequest:
        """Report outcomes."""
        return pb.ReportOutcomesRequest(episode_id=self._episode_id, outcomes=codec.outcomes_to_proto(outcomes))

    def label_episode(self, outcome: Label, source: str, note: str, episode_id: str) -> pb.LabelEpisodeRequest:
        """Ask to label an episode, the running one when no id is given."""
        return pb.LabelEpisodeRequest(
            episode_id=episode_id or self._episode_id, outcome=_outcome(outcome), label_source=source, note=note
        )

    def labelled(self, reply: pb.LabelEpisodeReply) -> Label:
        """Read what the label was before."""
        return {number: label for label, number in _LABELS.items()}[reply.previous]

    def obey(self, event: pb.ServerEvent) -> None:
        """Take an event for a robot that has no handler of its own: no chunk after an emergency stop. Any thread."""
        if event.HasField("emergency_stop"):
            stop = event.emergency_stop
            self._stop = f"emergency stop by {stop.by or 'unknown user'} on the policy server: {stop.reason}"

    def reset(self) -> None:
        """Forget the episode."""
        self._episode_id = ""

    def close(self) -> None:
        """Give the shared memory back."""
        self._sender.close()

    def _check_stop(self) -> None:
        if self._stop:
            raise ValueError(f"{self._stop}; when the arm may move again, call info()")

    def _agree(self, contract: Contract) -> None:
        self._contract_hash = contract.hash
        self._sender.fit(contract)


def _outcome(label: Label) -> pb.Outcome:
    if label not in _LABELS:
        raise ValueError(f"outcome '{label}' is not known: use {', '.join(map(repr, _LABELS))}")
    return _LABELS[label]
