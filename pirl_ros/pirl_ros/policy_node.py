"""Asks the policy server: synchronised cameras, joints, poses and an instruction out, action chunks in."""

from __future__ import annotations

import time
from typing import Any, cast

from std_msgs.msg import String
from std_srvs.srv import SetBool

from pirl_contract.client import Label, Mode, PolicyClient
from pirl_contract.schema import ActionChunk as Chunk
from pirl_ros import qos
from pirl_ros.diagnostics import Diagnostics
from pirl_ros.interfaces import ActionChunk, EpisodeEvent, PolicyStatus, StartEpisode, StepOutcome, StopEpisode
from pirl_ros.managed_node import ManagedNode
from pirl_ros.messages import fill_chunk, read_outcome
from pirl_ros.observing import make_observation
from pirl_ros.parameters import declare, declare_profile, read_profile
from pirl_ros.running import run
from pirl_ros.session import PolicySession
from pirl_ros.subscriptions import SensorStreams
from pirl_ros.sync import Bundle
from pirl_ros.waiting import a_while, from_thread

_REFUSED = (ConnectionError, TimeoutError, ValueError)
_LABELS = ("success", "failure", "unlabeled")
_LAST_OUTCOME_PERIODS = 3


class PolicyNode(ManagedNode):
    """No server, another contract, a missing stream: no chunk, and the reason on /diagnostics and ~/status."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        declare_profile(self)
        declare(self, "server_address", "127.0.0.1:50051", "policy server, host:port")
        declare(self, "robot_id", "robot", "name of this robot on the server; one per arm")
        declare(self, "mode", "", "explore: noisy, to learn from; deterministic: best guess; empty: as the server says")
        declare(self, "alias", "", "which served policy; empty: production")
        declare(self, "timeout_s", 2.0, "longest wait for the server, s; a change counts from the next episode on",
                (0.05, 60.0), dynamic=True)  # fmt: skip

    def configure(self) -> None:
        """Create everything; the server need not be there yet."""
        self._profile = read_profile(self)
        self._robot_id, self._address = self._value("robot_id"), self._value("server_address")
        self._session = PolicySession(self._connect, self._profile.contract, self._publish_chunk, self._value("alias"))
        self._sequence, self._instruction = 0, ""
        self._diagnostics = Diagnostics(self, self._profile.robot)
        self._chunks = self.create_publisher(ActionChunk, "action_chunks", qos.CHUNK)
        self._events = self.create_publisher(EpisodeEvent, "episode_events", qos.OUTCOME)
        self._status = self.create_publisher(PolicyStatus, "~/status", qos.LATCHED)
        self._streams = SensorStreams(self, self._profile, cameras=True, on_message=self._observe)
        self.create_subscription(StepOutcome, "step_outcomes", self._on_outcome, qos.OUTCOME)
        self.create_subscription(String, "~/instruction", self._on_instruction, qos.LATCHED)
        self.create_service(StartEpisode, "start_episode", self._start_episode, callback_group=self.awaiting)
        self.create_service(StopEpisode, "stop_episode", self._stop_episode, callback_group=self.awaiting)
        self.create_service(SetBool, "~/pause", self._pause)
        self.create_timer(0.1, self._check)
        self.create_timer(0.5, self._report)

    def _connect(self, alias: str) -> PolicyClient:
        timeout_s, mode = self._value("timeout_s"), cast(Mode, self._value("mode"))
        return PolicyClient(self._address, self._robot_id, timeout_s, mode, alias)

    def cleanup(self) -> None:
        """Close the connection."""
        self._session.close()

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check(self) -> None:
        self._session.check(time.monotonic_ns())
        self._observe()

    def _observe(self) -> None:
        bundle, reason = self._streams.newest()
        reason = reason or self._arm_missing()
        self._session.unfit(reason)
        if bundle is None or reason or not self.active:
            return
        if self._session.wants(bundle.stamp_ns, time.monotonic_ns()):
            self._ask(bundle)

    def _arm_missing(self) -> str:
        both = self._chunks.get_subscription_count() and self.count_publishers("step_outcomes")
        return "" if both else "no arm_node plays action_chunks and reports step_outcomes"

    def _ask(self, bundle: Bundle) -> None:
        instruction = self._session.standing.instruction
        try:
            observation = make_observation(self._profile, bundle, instruction, self._robot_id)
        except ValueError as error:
            self._session.unfit(str(error))
            return
        self._session.ask(observation, bundle.stamp_ns)

    def _publish_chunk(self, chunk: Chunk, stamp_ns: int, episode_id: str) -> None:
        self._sequence += 1
        self._chunks.publish(fill_chunk(ActionChunk(), chunk, stamp_ns, episode_id, self._sequence))

    def _on_outcome(self, message: Any) -> None:
        self._session.report(read_outcome(message))
        self._observe()

    def _on_instruction(self, message: Any) -> None:
        self._instruction = message.data

    async def _start_episode(self, request: Any, response: Any) -> Any:
        instruction = request.instruction or self._instruction
        metadata = dict(zip(request.metadata_keys, request.metadata_values))
        try:
            self._check_start(request, instruction)
            self._streams.clear()
            started = self._session.start(instruction, metadata, request.alias)
            response.episode_id = await from_thread(self, started)
        except _REFUSED as error:
            response.ok, response.message = False, str(error)
            return response
        seed = metadata.get("seed", "-1")
        self._publish_event(
            EpisodeEvent.START,
            episode_id=response.episode_id,
            instruction=instruction,
            seed=int(seed) if seed.lstrip("-").isdecimal() else -1,
            speed_scale=request.speed_scale,
        )
        response.ok = True
        return response

    def _check_start(self, request: Any, instruction: str) -> None:
        if not self.active:
            raise ValueError("policy_node is not active: activate it first")
        if not instruction:
            raise ValueError("no instruction: give one in the request or publish it on ~/instruction")
        if len(request.metadata_keys) != len(request.metadata_values):
            raise ValueError("metadata_keys and metadata_values must be of one length")
        if not 0.0 < request.speed_scale <= 1.0:
            raise ValueError(f"speed_scale must be above 0 and at most 1, got {request.speed_scale:g}")

    def _pause(self, request: Any, response: Any) -> Any:
        try:
            self._session.pause() if request.data else self._session.resume()
        except ValueError as error:
            response.message = str(error)
            return response
        response.success = True
        return response

    async def _stop_episode(self, request: Any, response: Any) -> Any:
        standing = self._session.standing
        if not standing.episode_id or request.outcome not in _LABELS:
            response.ok = False
            response.message = f"stop needs a running episode and one of {', '.join(_LABELS)}, got '{request.outcome}'"
            return response
        self._session.pause()
        self._publish_event(
            EpisodeEvent.END,
            episode_id=standing.episode_id,
            outcome=request.outcome,
            reason=request.reason,
            instruction=standing.instruction,
        )
        # The action under way is reported with the state that it leads to, one period from now.
        await a_while(self, _LAST_OUTCOME_PERIODS / self._profile.rate_hz)
        try:
            stopping = self._session.stop(
                cast(Label, request.outcome), request.label_source, request.reason, request.discard
            )
            receipt = await from_thread(self, stopping)
        except _REFUSED as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok, response.path, response.steps = True, receipt.path, receipt.steps
        return response

    def _publish_event(self, event: int, **fields: Any) -> None:
        stamp = self.get_clock().now().to_msg()
        self._events.publish(EpisodeEvent(event=event, stamp=stamp, **fields))

    def _report(self) -> None:
        standing = self._session.standing
        self._status.publish(
            PolicyStatus(
                stamp=self.get_clock().now().to_msg(),
                phase=standing.phase,
                reason=standing.reason,
                server_address=self._address,
                policy_name=standing.policy_name,
                policy_version=standing.policy_version,
                episode_id=standing.episode_id,
                instruction=standing.instruction,
                chunks=standing.chunks,
                steps=standing.steps,
                round_trip_ms=standing.round_trip_ms,
                failures=standing.failures,
            )
        )
        values = {"server": self._address, "policy version": standing.policy_version, "episode": standing.episode_id}
        self._diagnostics.publish(
            standing.reason, values | {"round trip ms": f"{standing.round_trip_ms:.1f}"}, standing.phase
        )


def main() -> None:
    """Run the node until a signal."""
    run(PolicyNode)
