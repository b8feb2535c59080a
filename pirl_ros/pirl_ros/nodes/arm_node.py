"""Plays action chunks on the arm: chunk in, limited joint commands out, one outcome published per action."""

from __future__ import annotations

import time
from typing import Any

from pirl_contract.schema import Alteration
from pirl_ros.adapters import qos
from pirl_ros.adapters.arm_services import ArmServices
from pirl_ros.adapters.controller_settings import ControllerSettings
from pirl_ros.adapters.controllers import Controllers, make_controllers
from pirl_ros.adapters.diagnostics import Diagnostics, safety_values
from pirl_ros.adapters.discovery import matched_publishers, matched_subscribers, missing_controller
from pirl_ros.adapters.gated_subscriptions import GatedGroup
from pirl_ros.adapters.interfaces import ActionChunk, EpisodeEvent, SafetyState, StepOutcome
from pirl_ros.adapters.lifecycle_node import ManagedNode
from pirl_ros.adapters.node_main import run
from pirl_ros.adapters.parameters import declare, declare_profile, read_profile
from pirl_ros.adapters.sensor_streams import SensorStreams
from pirl_ros.adapters.teleop_topics import TeleopTopics
from pirl_ros.adapters.workspace_marker import WorkspaceMarker
from pirl_ros.control.arm_executor import ArmExecutor, Tick
from pirl_ros.control.safety_report import Mode
from pirl_ros.messages.pirl_messages import fill_outcome, fill_safety_state, read_chunk

_STATE_S = 0.2
_REST_S = 2.0
"""longest braking at deactivation"""
_MOVING = (Mode.PLAYING, Mode.DRAINING, Mode.DECELERATING, Mode.HUMAN)
_REPORT_EVERY = 5
"""safety states per diagnostic"""


class ArmNode(ManagedNode):
    """Without chunks, with unfit ones or while inactive it sends nothing, and the controller holds the last target."""

    moves_an_arm = True

    def __init__(self) -> None:
        super().__init__("arm_node")
        declare_profile(self)
        declare(self, "dry_run", False, "true: compute and report everything, send nothing to the controllers")
        declare(
            self, "speed_scale", 1.0, "fraction of the velocity limits, (0, 1]", between=(0.01, 1.0), settable="always"
        )
        declare(self, "step_on_command", False, "true: the simulator waits for commands, also for late ones")
        TeleopTopics.declare(self)

    def configure(self) -> None:
        """Create everything from the profile. ValueError: the profile is wrong or has no limits."""
        self._profile = read_profile(self)
        self._by_state = self._profile.tick == "joint_states"
        self._arm = ArmExecutor(self._profile, waited_for=self.get_parameter("step_on_command").value)
        self._arm.set_speed_scale(self._speed_scale())
        self._reason, self._states = "", 0
        self._told, self._told_s = Alteration.NONE, 0.0
        self._state_key: tuple[object, ...] = ()
        self._dry_run = self.get_parameter("dry_run").value
        self._controllers = Controllers(make_controllers(self, self._profile, self._dry_run, self._on_controller_fault))
        self._settings = [ControllerSettings(self, single) for single in self._profile.singles]
        self._diagnostics = Diagnostics(self, self._profile.robot)
        self._outcomes = self.create_publisher(StepOutcome, "step_outcomes", qos.OUTCOME)
        self._safety = self.create_publisher(SafetyState, "safety_state", qos.LATCHED)
        self._workspaces = [WorkspaceMarker(self, single) for single in self._profile.singles]
        self._make_inputs()
        self.create_timer(_STATE_S, self._report)
        self._timer = None if self._by_state else self.create_timer(1.0 / self._profile.rate_hz, self._tick)

    def _make_inputs(self) -> None:
        # A timer reads what is there; an arm that answers each state is woken by its joint states.
        self._sensors, followers = GatedGroup(is_open=self._by_state), GatedGroup() if self._by_state else None
        self._streams = SensorStreams(self, self._profile, False, self._answer, self._sensors, followers)
        self._chunks = self.create_subscription(ActionChunk, "action_chunks", self._on_chunk, qos.CHUNK)
        self.create_subscription(EpisodeEvent, "episode_events", self._on_episode, qos.OUTCOME)
        self._people = ArmServices(self, self._arm, self._changed)
        self._teleop = TeleopTopics(self, self._profile, self._arm, self._answer)

    def activate(self) -> None:
        """Ready to play the next episode. ValueError: a profile that is for a simulation only, with real time."""
        self._check_clock(self.get_parameter("use_sim_time").value)
        self._publish_state()

    def deactivate(self) -> None:
        """Bring the arm to rest, then send nothing more: the controller holds what it was last given."""
        self._arm.end(self._arm.episode_id)
        deadline = time.monotonic() + _REST_S
        while not self._by_state and self._arm.report.mode in _MOVING and time.monotonic() < deadline:
            self._tick()
            time.sleep(1.0 / self._profile.rate_hz)
        self._controllers.send(None, self._arm.ahead)
        # A goal that is cancelled ends where the arm is at that moment, at whatever speed.
        time.sleep(min(self._controllers.remaining_s, _REST_S))
        self._controllers.stop()

    def cleanup(self) -> None:
        """Destroy the controllers' actions: they are no entities that a node lists."""
        self._controllers.close()

    def _on_controller_fault(self, reason: str) -> None:
        self._arm.controller_fault(reason)
        self._changed()

    def _speed_scale(self) -> float:
        return float(self.get_parameter("speed_scale").value)

    def apply(self, parameters: list[Any]) -> None:
        """Take over speed_scale. ValueError: real time while a simulated arm is driven."""
        for parameter in parameters:
            if parameter.name == "speed_scale":
                self._arm.set_speed_scale(parameter.value)
            elif parameter.name == "use_sim_time" and self.active:
                self._check_clock(parameter.value)

    def _check_clock(self, simulated: bool) -> None:
        if self._profile.simulation_only and not simulated:
            raise ValueError(
                f"the profile of '{self._profile.robot}' is for a simulated arm"
                f" ({'; '.join(self._profile.simulation_only)}): for a real one name its own profile"
                " (robot:=NAME or profile:=FILE), for a simulated one set use_sim_time:=true"
            )

    def _on_episode(self, event: Any) -> None:
        if event.event == EpisodeEvent.START:
            self._arm.set_speed_scale(min(self._speed_scale(), event.speed_scale))
            self._arm.begin(event.episode_id)
        elif event.event == EpisodeEvent.END:
            self._arm.end(event.episode_id)
            self._arm.set_speed_scale(self._speed_scale())
        self._changed()

    def _on_chunk(self, message: Any) -> None:
        if not self.active:
            return
        try:
            chunk = read_chunk(message, self._profile.contract.action_dim)
            dropped = self._arm.accept(chunk)
        except ValueError as error:
            dropped = str(error)
        if dropped:
            self.get_logger().warning(f"chunk dropped: {dropped}", throttle_duration_sec=1.0)
            return
        self._controllers.renew()
        if self._timer is not None and self._arm.report.mode in (Mode.IDLE, Mode.HOLDING):
            # Nothing is under way that a period counts from: the new one starts here.
            self._timer.reset()
            self._tick()
        elif self._timer is not None:
            self._controllers.foresee(self._arm.soon)
        self._answer()

    def _answer(self) -> None:
        if self._by_state:
            self._tick()

    def _tick(self) -> None:
        if not self._by_state:
            self._sensors.take()
        bundle, self._reason = self._streams.newest()
        if not self.active or (bundle is None and self._by_state):
            return
        try:
            tick = self._arm.tick(bundle, time.monotonic_ns())
        except ValueError as error:
            self._reason = str(error)
            if self._by_state:
                return
            # A state that does not fit is none: the arm is braked, also one that would stop at once without a command.
            tick = self._arm.tick(None, time.monotonic_ns())
        self._send(tick)

    def _send(self, tick: Tick) -> None:
        report = self._arm.report
        self._controllers.heed(report.control_source, report.episode_id)
        self._arm.add_alterations(self._controllers.send(tick.command, self._arm.ahead))
        if tick.command is not None:
            self._tell(tick.command.alterations)
        if tick.outcome is not None:
            self._outcomes.publish(fill_outcome(StepOutcome(), tick.outcome, self._dry_run))
        self._changed()

    def _tell(self, alterations: Alteration) -> None:
        """Log what is altered when it changes, at most once a second: rclpy's throttle inspects the stack each time."""
        now_s = time.monotonic()
        if alterations and alterations != self._told and now_s > self._told_s + 1.0:
            self.get_logger().warning(f"action altered: {alterations!r}")
            self._told, self._told_s = alterations, now_s

    def _changed(self) -> None:
        """Publish the state at once when something that a person would want to see has changed."""
        report = self._arm.report
        key = (report.mode, report.emergency_stop, report.latched, report.control_source, report.episode_id)
        if key != self._state_key:
            self._state_key = key
            self._publish_state()

    def _publish_state(self) -> None:
        state = fill_safety_state(SafetyState(), self._arm.report, self.active, self._dry_run)
        state.outcome_readers = matched_subscribers(self, self._outcomes)
        state.ready = self.active and bool(state.outcome_readers)
        state.hears_chunks = matched_publishers(self, self._chunks) > 0
        state.header.stamp = state.stamp = self.get_clock().now().to_msg()
        state.header.frame_id = self._profile.base_frame
        self._safety.publish(state)

    def _report(self) -> None:
        self._publish_state()
        self._states += 1
        if self._states % _REPORT_EVERY:
            return
        for workspace in self._workspaces:
            workspace.publish()
        # Asked again: a stream that fell silent calls nothing by itself.
        _, reason = self._streams.newest()
        report = self._arm.report
        for settings in self._settings:
            settings.look()
        commands = () if self._dry_run else [single.command for single in self._profile.singles]
        unheard = [missing_controller(self, command) for command in commands]
        # What holds the arm comes first: a stream that is silent too is less.
        reasons = [report.reason] if report.latched else [reason or self._reason or report.reason]
        reasons += [self._controllers.problem, *(settings.problem for settings in self._settings), *unheard]
        said = "; ".join(dict.fromkeys(filter(None, reasons)))
        self._diagnostics.publish(said, safety_values(report), error=report.latched)


def main() -> None:
    """Run the node until a signal."""
    run(ArmNode)
