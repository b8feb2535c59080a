"""The policy service of policy.proto: checks, waits for the engine, feeds the recorder."""

# ruff: noqa: N802  (policy.proto names the methods)
from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from concurrent.futures import CancelledError
from importlib.metadata import version
from typing import Any

import numpy as np

from pirl_contract import ActionChunk, Contract, Observation, StepOutcome, codec
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.policy.sample import ServedPolicy
from pirl_server.serving.engine import Engine, Inference
from pirl_server.serving.open_episode import Ending, OpenEpisode, Start
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.refusals import ExpiredError, NoPolicyError
from pirl_server.serving.status import ContractMismatchError, NotFoundError, answers_with_status

MAX_WAIT_S = 30.0
"""for a client that set no deadline"""
END_REASONS = ("success", "time_limit", "operator", "takeover", "fault")
LABEL_SOURCES = ("operator", "sim", "classifier")
_SUCCESS = {pb.OUTCOME_UNLABELED: None, pb.OUTCOME_SUCCESS: True, pb.OUTCOME_FAILURE: False}


class PolicyService(policy_pb2_grpc.PolicyServiceServicer):
    """One engine for all robots; `explore` is the sampling mode of robots that ask for none."""

    def __init__(self, engine: Engine, recorder: Recorder, explore: bool) -> None:
        self._engine, self._recorder, self._explore = engine, recorder, explore
        self.max_waiting = engine.queue_size + 1
        """requests that can wait for the device at the same time: the queue and the one on the device"""

    @answers_with_status
    def GetInfo(self, request: Any, context: Any) -> Any:
        """Say what is served; never waits for inference."""
        policy = self._policy(request.alias)
        return pb.GetInfoReply(
            contract_json=policy.contract.to_json(),
            contract_hash=policy.contract.hash,
            policy_version=policy.version,
            policy_name=policy.name,
            horizon=policy.horizon,
            execute_horizon=policy.execute_horizon,
            server_version=version("pirl"),
            instructions=policy.instructions,
        )

    @answers_with_status
    def StartEpisode(self, request: Any, context: Any) -> Any:
        """Open an episode after comparing the contracts."""
        policy, contract = self._policy(request.alias), Contract.from_json(request.contract_json)
        if differences := policy.contract.difference(contract):
            raise ContractMismatchError("the policy's contract is another one; " + "; ".join(differences))
        start = Start(
            robot_id=request.robot_id,
            contract=contract,
            instruction=request.instruction,
            policy_name=policy.name,
            execute_horizon=policy.execute_horizon,
            explore=self._explores(request.mode, self._explore),
            metadata=dict(request.metadata),
        )
        return pb.StartEpisodeReply(episode_id=self._recorder.start(start).id, policy_version=policy.version)

    @answers_with_status
    def Infer(self, request: Any, context: Any) -> Any:
        """Answer one observation with one chunk; outcomes are kept even when the inference then fails."""
        arrived = time.monotonic()
        observation = codec.observation_from_proto(request.observation, request.robot_id)
        outcomes = codec.outcomes_from_proto(request.outcomes)
        policy = self._policy(request.alias)
        if request.contract_hash != policy.contract.hash:
            raise ContractMismatchError(
                f"contract hash is '{request.contract_hash}', the policy's {policy.contract.hash}:"
                " ask GetInfo for its contract; StartEpisode says where they differ"
            )
        policy.contract.check(observation)
        episode = self._episode(request.episode_id, observation, outcomes)
        explore = self._explores(request.mode, episode.start.explore if episode else self._explore)
        decoded = time.monotonic()
        inference = self._wait_for(observation, explore, context)
        total_ms = 1000 * (time.monotonic() - arrived)
        chunk = _chunk(observation, inference, 1000 * (decoded - arrived), total_ms)
        if episode:
            episode.add_call(observation, inference.sample, chunk, total_ms)
        return codec.chunk_to_proto(chunk, request.sequence)

    @answers_with_status
    def EndEpisode(self, request: Any, context: Any) -> Any:
        """Publish or drop an episode; the reply comes when it is on the disk."""
        ending, outcomes = _ending(request), codec.outcomes_from_proto(request.outcomes)
        try:
            if request.discard:
                receipt = self._recorder.discard(request.episode_id)
            else:
                episode = self._recorder.find(request.episode_id)
                _check_final(ending.final, episode.start.contract)
                episode.add_outcomes(outcomes)
                receipt = self._recorder.end(request.episode_id, ending)
        except KeyError:
            raise NotFoundError(f"no open episode '{request.episode_id}': it was ended, or closed when idle") from None
        return pb.EndEpisodeReply(path=receipt.path, steps=receipt.steps)

    def _policy(self, alias: str) -> ServedPolicy:
        if alias not in ("", "production"):
            raise NotFoundError(f"alias '{alias}' is not served here, only 'production'")
        if self._engine.current is None:
            raise NoPolicyError("no policy is loaded yet")
        return self._engine.current

    def _explores(self, mode: int, default: bool) -> bool:
        if mode not in pb.SamplingMode.values():
            raise ValueError(f"mode {mode} is not known")
        return default if mode == pb.SAMPLING_MODE_UNSPECIFIED else mode == pb.SAMPLING_MODE_EXPLORE

    def _episode(self, episode_id: str, seen: Observation, outcomes: Sequence[StepOutcome]) -> OpenEpisode | None:
        if not episode_id:
            if outcomes:
                raise ValueError("outcomes without an episode id: nothing could be logged; call StartEpisode first")
            return None
        try:
            episode = self._recorder.find(episode_id)
        except KeyError:
            raise NotFoundError(f"no open episode '{episode_id}': it was ended, or closed when idle") from None
        if seen.robot_id != episode.start.robot_id:
            raise ValueError(f"episode '{episode_id}' belongs to robot '{episode.start.robot_id}'")
        if seen.instruction != episode.start.instruction:
            raise ValueError("the instruction changed within an episode: end it and start another")
        episode.add_outcomes(outcomes)
        return episode

    def _wait_for(self, observation: Observation, explore: bool, context: Any) -> Inference:
        remaining = context.time_remaining()
        wait_s = MAX_WAIT_S if remaining is None else min(remaining, MAX_WAIT_S)
        future = self._engine.submit(
            observation, explore=explore, robot_id=observation.robot_id, deadline=time.monotonic() + wait_s
        )
        context.add_callback(future.cancel)  # the call ended, by its client or its deadline: leave the queue
        try:
            return future.result()
        except CancelledError:
            raise ExpiredError("given up by the client before the device was touched") from None


def _chunk(observation: Observation, inference: Inference, decode_ms: float, total_ms: float) -> ActionChunk:
    sample, policy = inference.sample, inference.policy
    if not np.isfinite(sample.actions).all():
        raise RuntimeError(f"policy {policy.version} drew actions that are not finite, seed {sample.seed}")
    return ActionChunk(
        actions=sample.actions,
        dt_s=1.0 / policy.contract.rate_hz,
        chunk_id=uuid.uuid4().hex,
        policy_version=policy.version,
        seed=sample.seed,
        execute_horizon=policy.execute_horizon,
        start_time_ns=observation.capture_time_ns,
        timings_ms={
            "decode": decode_ms,
            "queue": inference.queue_ms,
            "infer": inference.infer_ms,
            "total": total_ms,
        },
    )


def _ending(request: Any) -> Ending:
    if request.discard:
        return Ending(None, "", "operator")
    if request.outcome not in _SUCCESS:
        raise ValueError(f"outcome {request.outcome} is not known")
    success = _SUCCESS[request.outcome]
    if request.end_reason not in END_REASONS:
        raise ValueError(f"end_reason '{request.end_reason}' must be one of {', '.join(END_REASONS)}")
    if request.end_reason == "success" and success is not True:
        raise ValueError("end_reason is 'success' but the outcome is not")
    if success is not None and request.label_source not in LABEL_SOURCES:
        raise ValueError(f"label_source '{request.label_source}' must be one of {', '.join(LABEL_SOURCES)}")
    final = None
    if request.HasField("final_observation"):
        final = codec.observation_from_proto(request.final_observation, "")
    return Ending(success, request.label_source if success is not None else "", request.end_reason, final)


def _check_final(final: Observation | None, contract: Contract) -> None:
    if final is None:
        return
    try:
        contract.check(final)
    except ValueError as error:
        raise ValueError(f"final_observation: {error}") from None
