"""Requests inference: synchronised cameras, joints, poses and an instruction out, action chunks in."""

from __future__ import annotations

import time
from typing import Any, cast

from std_msgs.msg import String

from pirl_contract.client import Mode, PolicyClient
from pirl_contract.names import check_robot_id
from pirl_contract.schema import ActionChunk as Chunk
from pirl_contract.schema import ControlSource
from pirl_ros.adapters import qos
from pirl_ros.adapters.camera_info import CameraInfos
from pirl_ros.adapters.diagnostics import Diagnostics
from pirl_ros.adapters.discovery import matched_publishers, missing_controller
from pirl_ros.adapters.episode_services import EpisodeServices
from pirl_ros.adapters.gated_subscriptions import OnDemandGroup
from pirl_ros.adapters.interfaces import ActionChunk, PolicyStatus, SafetyState, StepOutcome
from pirl_ros.adapters.lifecycle_node import ManagedNode
from pirl_ros.adapters.node_main import run
from pirl_ros.adapters.operator_inputs import receive_each
from pirl_ros.adapters.parameters import declare, declare_profile, read_profile
from pirl_ros.adapters.sensor_streams import SensorStreams
from pirl_ros.adapters.server_access import declare_access, read_access
from pirl_ros.adapters.server_events import ServerEvents
from pirl_ros.control.action_space import ActionSpace
from pirl_ros.messages.pirl_messages import fill_chunk, fill_policy_status, read_outcome
from pirl_ros.policy_session.session import PolicySession, Standing
from pirl_ros.sensing.observation import make_observation
from pirl_ros.sensing.synchronizer import Bundle

_ARM_SILENT_S = 1.0


class PolicyNode(ManagedNode):
    """No server, another contract, a missing stream: no chunk, and the reason on /diagnostics and ~/status."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        declare_profile(self)
        declare(self, "server_address", "127.0.0.1:50051", "policy server, host:port; [::1]:50051 for IPv6")
        declare_access(self)
        declare(self, "robot_id", "robot", "name of this robot on the server; one per arm")
        declare(self, "mode", "", "explore (with noise, for training), deterministic; empty: server's default")
        declare(self, "alias", "", "alias of the served policy; empty: production")
        declare(self, "timeout_s", 2.0, "time-out of a call to the server, s", between=(0.05, 60.0), settable="always")

    def configure(self) -> None:
        """Create everything; the server need not be there yet."""
        self._profile = read_profile(self)
        self._robot_id, self._address = check_robot_id(self._value("robot_id")), self._value("server_address")
        self._access, self._events = read_access(self), ServerEvents(self)
        space = ActionSpace(self._profile)
        self._session = PolicySession(
            self._connect,
            self._profile.contract,
            self._publish_chunk,
            alias=self._value("alias"),
            ahead=self._profile.tick == "timer",
            sees=bool(self._profile.cameras),
            rebase=space.rebased_by_state if space.counts_from_observation else None,
        )
        self._sequence, self._arm, self._arm_s, self._complete = 0, SafetyState(), 0.0, False
        self._diagnostics = Diagnostics(self, self._profile.robot)
        self._chunks = self.create_publisher(ActionChunk, "action_chunks", qos.CHUNK)
        self._status = self.create_publisher(PolicyStatus, "~/status", qos.LATCHED)
        # Without an episode they are read twice a second, to report missing ones.
        # While a chunk plays they are not needed either. Of a simulator that waits, the state after the last action is
        # there already when that action is reported.
        self._by_state = self._profile.tick == "joint_states"
        self._sensors = OnDemandGroup(lambda: self._session.wanting, keep=self._by_state)
        self._streams = SensorStreams(self, self._profile, True, self._observe, self._sensors)
        self._outcomes = self.create_subscription(StepOutcome, "step_outcomes", self._on_outcome, qos.OUTCOME)
        self.create_subscription(SafetyState, "safety_state", self._on_arm, qos.LATCHED)
        receive_each(self, String, "~/instruction", self._on_instruction, latched=True)
        cameras = CameraInfos(self, self._profile)
        self._episodes = EpisodeServices(self, self._session, self._profile.rate_hz, self._listen, cameras)
        self.create_timer(0.5, self._look)

    def _connect(self, alias: str) -> PolicyClient:
        timeout_s, mode = self._value("timeout_s"), cast(Mode, self._value("mode"))
        access = self._access
        return PolicyClient(self._address, self._robot_id, timeout_s, mode, alias, on_event=self._events.put, **access)

    def cleanup(self) -> None:
        """Close the connection."""
        self._session.close()

    def apply(self, parameters: list[Any]) -> None:
        """Take over timeout_s."""
        for parameter in parameters:
            if parameter.name == "timeout_s":
                self._session.set_timeout(parameter.value)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _listen(self, wanted: bool) -> None:
        if wanted:
            self._streams.clear()
            self._sensors.take(discard=True)
        self._sensors.open = wanted

    def _look(self) -> None:
        self._session.check(time.monotonic_ns())
        if not self._sensors.received:
            self._sensors.take()
        self._observe(anyway=True)
        self.report()

    def _observe(self, anyway: bool = False) -> None:
        if not (anyway or self._session.observing):
            return
        bundle, reason = self._streams.newest()
        if bundle is None and (not anyway or self._sensors.young):
            return
        reason = reason or self._arm_missing()
        if anyway and bundle is not None and not reason and not self._session.standing.episode_id:
            # What no observation can be made of is to be known before an episode.
            reason = self._unusable(bundle)
        self._session.unfit(reason)
        self._complete = bundle is not None and not reason
        if bundle is None or reason or not self.active:
            return
        if self._session.wants(bundle.stamp_ns, time.monotonic_ns(), bundle.received_ns):
            self._ask(bundle)

    def _arm_missing(self) -> str:
        # Its own word, not the list of publishers: an arm that does not know us yet would report to no one.
        arm = self._arm
        here = arm.ready and time.monotonic() - self._arm_s < _ARM_SILENT_S
        plays = arm.hears_chunks and self._chunks.get_subscription_count()
        reports = self.get_fully_qualified_name() in arm.outcome_readers and matched_publishers(self, self._outcomes)
        return "" if here and plays and reports else "no arm_node on action_chunks and step_outcomes"

    def _on_arm(self, state: Any) -> None:
        self._arm, self._arm_s = state, time.monotonic()
        source = ControlSource.__members__.get(state.control_source.upper() or "POLICY")
        if source is None:
            self.get_logger().error(
                f"arm_node names a control source '{state.control_source}' that is not known here and is taken"
                " for a hold: run both nodes from the same version",
                once=True,
            )
        self._session.driven_by(ControlSource.HOLD if source is None else source)

    @property
    def dry_run(self) -> bool:
        """Whether the arm computes its commands without sending them."""
        return bool(self._arm.dry_run)

    def refusal(self) -> str:
        """Why no episode may start now; '' when one may."""
        if not self.active:
            return "policy_node is not active: activate it first"
        return f"emergency stop: {self._arm.reason}; call clear_emergency_stop" if self._arm.emergency_stop else ""

    def _unusable(self, bundle: Bundle) -> str:
        try:
            make_observation(self._profile, bundle, "", self._robot_id)
        except ValueError as error:
            return str(error)
        return ""

    def _ask(self, bundle: Bundle) -> None:
        instruction = self._session.standing.instruction
        try:
            observation = make_observation(self._profile, bundle, instruction, self._robot_id)
        except ValueError as error:
            self._session.unfit(str(error))
            return
        self._session.ask(observation, bundle.stamp_ns, bundle.received_ns)

    def _publish_chunk(self, chunk: Chunk, stamp_ns: int, episode_id: str) -> None:
        self._sequence += 1
        self._chunks.publish(fill_chunk(ActionChunk(), chunk, stamp_ns, episode_id, self._sequence))

    def _on_outcome(self, message: Any) -> None:
        self._session.report(read_outcome(message))
        if self._by_state and self._session.wanting and not self._sensors.received:
            self._streams.catch_up(self._sensors)
        self._observe()

    def _on_instruction(self, message: Any) -> None:
        self._episodes.instruction = message.data

    def report(self) -> None:
        """Publish the status and the diagnostics."""
        standing = self._session.standing
        status = fill_policy_status(PolicyStatus(), standing, self._address)
        status.header.stamp = status.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)
        values = {
            "server": self._address,
            "policy version": standing.policy_version,
            "episode": standing.episode_id,
            "chunks": standing.chunks,
            "steps": standing.steps,
            "failed inferences": standing.failures,
            "dry run": self.dry_run,
            "round trip ms": f"{standing.round_trip_ms:.1f}",
        }
        failed, ready = self._session.failed, self._ready(standing)
        self._diagnostics.publish(standing.reason, values, standing.phase, error=failed, ready=ready)

    def _ready(self, standing: Standing) -> str:
        """What runs here, once everything that an episode takes is there."""
        if not (self.active and self._complete):
            return ""
        commands = [single.command for single in self._profile.singles]
        if not self.dry_run and any(missing_controller(self, command) for command in commands):
            return ""
        names = " and ".join(f"{command.kind} on {command.topic}" for command in commands)
        controller = "none (dry_run)" if self.dry_run else names
        policy = " ".join(filter(None, [standing.policy_name, standing.policy_version]))
        return f"policy {policy} at {self._address}, {self._streams.count} streams, controller {controller}"


def main() -> None:
    """Run the node until a signal."""
    run(PolicyNode)
