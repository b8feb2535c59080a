"""start_episode, stop_episode, label_episode and pause over a PolicySession, and the events for the arm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from std_srvs.srv import SetBool

from pirl_contract.client import Label
from pirl_contract.schema import DRY_RUN_KEY
from pirl_ros.adapters import qos
from pirl_ros.adapters.awaitables import from_thread, sleep
from pirl_ros.adapters.camera_info import CameraInfos
from pirl_ros.adapters.interfaces import EpisodeEvent, LabelEpisode, StartEpisode, StopEpisode
from pirl_ros.policy_session.session import PolicySession

_REFUSED = (ConnectionError, TimeoutError, ValueError)
_LABELS = ("success", "failure", "unlabeled")
_LAST_OUTCOME_PERIODS = 3


def publish_event(node: Any, publisher: Any, event: int, **fields: Any) -> None:
    """Publish an EpisodeEvent that happens now."""
    message = EpisodeEvent(event=event, **fields)
    message.header.stamp = message.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)


class EpisodeServices:
    """`listen(True)` is called before an episode starts, `listen(False)` when it has ended or was rejected."""

    def __init__(
        self,
        node: Any,
        session: PolicySession,
        rate_hz: float,
        listen: Callable[[bool], None],
        cameras: CameraInfos,
    ) -> None:
        self._node, self._session, self._listen, self._cameras = node, session, listen, cameras
        self._last_outcome_s = _LAST_OUTCOME_PERIODS / rate_hz
        self.instruction = ""
        """used by a start that names none"""
        self._events = node.create_publisher(EpisodeEvent, "episode_events", qos.OUTCOME)
        node.create_service(StartEpisode, "start_episode", self._start, callback_group=node.awaiting)
        node.create_service(StopEpisode, "stop_episode", self._stop, callback_group=node.awaiting)
        node.create_service(LabelEpisode, "label_episode", self._label, callback_group=node.awaiting)
        node.create_service(SetBool, "~/pause", self._pause)

    async def _start(self, request: Any, response: Any) -> Any:
        instruction = request.instruction or self.instruction
        calibration, doubts = self._cameras.metadata()
        for doubt in doubts:
            self._node.get_logger().warning(doubt)
        metadata = calibration | dict(zip(request.metadata_keys, request.metadata_values))
        if self._node.dry_run:
            self._node.get_logger().warning("arm_node is in dry_run: the episode is excluded from training")
            metadata[DRY_RUN_KEY] = "true"
        try:
            self._check(request, instruction)
            self._listen(True)
            started = self._session.start(instruction, metadata, request.alias)
            response.episode_id = await from_thread(self._node, started)
        except _REFUSED as error:
            self._listen(bool(self._session.standing.episode_id))
            response.ok, response.message = False, str(error)
            return response
        seed = metadata.get("seed", "-1")
        self._publish(
            EpisodeEvent.START,
            episode_id=response.episode_id,
            instruction=instruction,
            seed=int(seed) if seed.lstrip("-").isdecimal() else -1,
            speed_scale=request.speed_scale,
        )
        response.ok = True
        return response

    def _check(self, request: Any, instruction: str) -> None:
        if refusal := self._node.refusal():
            raise ValueError(refusal)
        if running := self._session.standing.episode_id:
            raise ValueError(f"episode {running} is running: stop it first")
        if not instruction:
            raise ValueError("no instruction: give one in the request or publish it on ~/instruction")
        if len(request.metadata_keys) != len(request.metadata_values):
            raise ValueError("metadata_keys and metadata_values must have the same length")
        if not 0.0 < request.speed_scale <= 1.0:
            raise ValueError(f"speed_scale must be above 0 and at most 1, got {request.speed_scale:g}")

    async def _stop(self, request: Any, response: Any) -> Any:
        standing = self._session.standing
        if not standing.episode_id or request.outcome not in _LABELS:
            response.ok = False
            response.message = f"stop needs a running episode and one of {', '.join(_LABELS)}, got '{request.outcome}'"
            return response
        self._session.pause()
        self._publish(
            EpisodeEvent.END,
            episode_id=standing.episode_id,
            outcome=request.outcome,
            reason=request.reason,
            instruction=standing.instruction,
        )
        # The action under way is reported with the state that it leads to, one period from now.
        await sleep(self._node, self._last_outcome_s)
        try:
            label = cast(Label, request.outcome)
            stopping = self._session.stop(label, request.label_source, request.reason, request.discard)
            self._listen(False)
            self._node.report()
            receipt = await from_thread(self._node, stopping)
        except _REFUSED as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok, response.path, response.steps = True, receipt.path, receipt.steps
        return response

    async def _label(self, request: Any, response: Any) -> Any:
        try:
            if not request.episode_id or request.outcome not in _LABELS:
                raise ValueError(f"a label needs an episode_id and an outcome of {', '.join(_LABELS)}")
            label = cast(Label, request.outcome)
            labelling = self._session.label(label, request.label_source, request.note, request.episode_id)
            response.previous = await from_thread(self._node, labelling)
        except _REFUSED as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok = True
        return response

    def _pause(self, request: Any, response: Any) -> Any:
        try:
            self._session.pause() if request.data else self._session.resume()
        except ValueError as error:
            response.message = str(error)
            return response
        response.success = True
        return response

    def _publish(self, event: int, **fields: Any) -> None:
        publish_event(self._node, self._events, event, **fields)
        self._node.report()
