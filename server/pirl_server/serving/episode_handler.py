"""Episode calls of robots: start, outcomes, end, label. None of them uses the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from pirl_contract import Contract
from pirl_contract.schema import check_instruction
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.wire import codec
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.episode_builder import EpisodeEnd, EpisodeStart
from pirl_server.serving.grpc_status import ContractMismatchError, NotFoundError, NotWrittenError
from pirl_server.serving.recorder import Recorder

END_REASONS = ("success", "time_limit", "operator", "takeover", "fault")
LABEL_SOURCES = ("operator", "sim", "classifier")
MAX_NOTE = 1000
MAX_METADATA_BYTES = 65536
SUCCESS = {pb.OUTCOME_UNLABELED: None, pb.OUTCOME_SUCCESS: True, pb.OUTCOME_FAILURE: False}
Found = TypeVar("Found")
_OUTCOME = {success: outcome for outcome, success in SUCCESS.items()}


class EpisodeCalls:
    """The recorder's side of the wire. Any thread."""

    def __init__(self, recorder: Recorder, codecs: CameraCodecs | None) -> None:
        self._recorder, self._codecs = recorder, codecs

    def start(
        self, request: pb.StartEpisodeRequest, policy: ServedPolicy, explore: Callable[[str], bool], instruction: str
    ) -> pb.StartEpisodeReply:
        """Open an episode after comparing the contracts; `explore` decides for a robot that requests no mode.

        `instruction` is that of the request, or the one that stands for none.

        Raises ContractMismatchError when they differ.
        """
        contract = Contract.from_json(request.contract_json)
        if differences := policy.contract.difference(contract):
            raise ContractMismatchError("the policy's contract differs; " + "; ".join(differences))
        _check_start(request)
        asked = codec.explore_from_proto(request.mode)
        start = EpisodeStart(
            robot_id=request.robot_id,
            contract=contract,
            instruction=instruction,
            policy_name=policy.name,
            execute_horizon=policy.execute_horizon,
            explore=explore(request.robot_id) if asked is None else asked,
            metadata=dict(request.metadata),
        )
        return pb.StartEpisodeReply(episode_id=self._recorder.start(start).id, policy_version=policy.version)

    def report(self, request: pb.ReportOutcomesRequest) -> pb.ReportOutcomesReply:
        """Take in what the robot did, without a question."""
        outcomes = codec.outcomes_from_proto(request.outcomes)
        episode = self._find(self._recorder.find, request.episode_id)
        episode.add_outcomes(outcomes)
        return pb.ReportOutcomesReply(steps=episode.steps)

    def end(self, request: pb.EndEpisodeRequest) -> pb.EndEpisodeReply:
        """Publish or drop an episode; returns when it is on the disk. Raises NotWrittenError where that rejects it."""
        ending, outcomes = self._ending(request), codec.outcomes_from_proto(request.outcomes)
        if request.discard:
            receipt = self._find(self._recorder.discard, request.episode_id)
        else:
            with _disk("the episode", "end it again later"):
                receipt = self._find(
                    lambda episode_id: self._recorder.end(episode_id, ending, outcomes), request.episode_id
                )
        return pb.EndEpisodeReply(path=receipt.path, steps=receipt.steps)

    def label(self, request: pb.LabelEpisodeRequest) -> pb.LabelEpisodeReply:
        """Say, or take back, how an episode went, while it runs or after it was published.

        Raises NotFoundError for an unknown episode, ValueError for too long a note and NotWrittenError as `end`.
        """
        success, source = _label(request)
        if len(request.note) > MAX_NOTE:
            raise ValueError(f"note: {len(request.note)} characters, at most {MAX_NOTE} are kept")
        try:
            with _disk("the label", "send it again later"):
                previous = self._recorder.label(request.episode_id, success, source, request.note)
        except KeyError:
            raise NotFoundError(f"no episode '{request.episode_id}', open or published") from None
        return pb.LabelEpisodeReply(previous=_OUTCOME[previous])

    def _ending(self, request: pb.EndEpisodeRequest) -> EpisodeEnd:
        ending = _ending(request)
        if request.discard or not request.HasField("final_observation"):
            return ending
        message = request.final_observation
        final = codec.observation_from_proto(message, "")
        if self._codecs is not None:
            final, _ = self._codecs.apply(final, message.images)
        return replace(ending, final=final)

    def _find(self, look: Callable[[str], Found], episode_id: str) -> Found:
        try:
            return look(episode_id)
        except KeyError:
            raise no_episode(episode_id) from None


def no_episode(episode_id: str) -> NotFoundError:
    """The error of a call for an episode that is not open."""
    return NotFoundError(f"no open episode '{episode_id}': it has ended, or was closed when idle")


@contextmanager
def _disk(what: str, fix: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or "the disk rejects it"
        raise NotWrittenError(f"{what} could not be written: {why}; {fix}") from error


def _label(request: pb.EndEpisodeRequest | pb.LabelEpisodeRequest) -> tuple[bool | None, str]:
    if request.outcome not in SUCCESS:
        raise ValueError(f"outcome {request.outcome} is not known")
    success = SUCCESS[request.outcome]
    if success is not None and request.label_source not in LABEL_SOURCES:
        raise ValueError(f"label_source '{request.label_source}' must be one of {', '.join(LABEL_SOURCES)}")
    return success, request.label_source if success is not None else ""


def _ending(request: pb.EndEpisodeRequest) -> EpisodeEnd:
    if request.discard:
        return EpisodeEnd(None, "", "operator")
    success, source = _label(request)
    if request.end_reason not in END_REASONS:
        raise ValueError(f"end_reason '{request.end_reason}' must be one of {', '.join(END_REASONS)}")
    if request.end_reason == "success" and success is not True:
        raise ValueError("end_reason is 'success' but the outcome is not")
    return EpisodeEnd(success, source, request.end_reason)


def _check_start(request: pb.StartEpisodeRequest) -> None:
    check_instruction(request.instruction)
    if (size := sum(len(key) + len(value) for key, value in request.metadata.items())) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata: {size} characters, at most {MAX_METADATA_BYTES} are kept")
