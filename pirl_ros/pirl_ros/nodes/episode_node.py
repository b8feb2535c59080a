"""Runs instructions as episodes: the action, the operator's labels, the scene's reset, one at a time."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from pirl_ros.adapters import qos
from pirl_ros.adapters.diagnostics import Diagnostics
from pirl_ros.adapters.instruction_flow import EpisodeFlow
from pirl_ros.adapters.interfaces import (
    EpisodeEvent,
    ExecuteInstruction,
    LabelEpisode,
    MarkSuccess,
    PolicyStatus,
    ResetEnvironment,
    SafetyState,
    StartEpisode,
    StopEpisode,
)
from pirl_ros.adapters.lifecycle_node import ManagedNode
from pirl_ros.adapters.node_main import run
from pirl_ros.adapters.operator_inputs import receive_each
from pirl_ros.adapters.parameters import declare
from pirl_ros.episode.instruction_run import Ending, EpisodeRun, RunLimits

_BUTTONS = ("success", "failure", "discard", "undo")


class EpisodeNode(ManagedNode):
    """Talks to policy_node and arm_node through their topics and services only, so it may run anywhere."""

    def __init__(self) -> None:
        super().__init__("episode_node")
        declare(self, "max_duration_s", 60.0, "default time limit of a goal, s", (1.0, 3600.0), settable="always")
        declare(
            self, "undo_window_s", 2.0, "time during which a label can be retracted, s", (0.0, 60.0), settable="always"
        )
        declare(
            self, "patience_s", 10.0, "time-out for messages from nodes and server, s", (1.0, 600.0), settable="always"
        )
        declare(self, "operator_reset", False, "each goal waits for ~/scene_ready before it starts", settable="always")

    def configure(self) -> None:
        """Create the action, the services and the clients."""
        self._flow = EpisodeFlow(
            self,
            self.create_client(StartEpisode, "start_episode"),
            self.create_client(StopEpisode, "stop_episode"),
            self.create_client(ResetEnvironment, "reset_environment"),
            self.create_client(SetBool, "policy_node/pause"),
            self.create_client(LabelEpisode, "label_episode"),
            self.create_publisher(EpisodeEvent, "episode_events", qos.OUTCOME),
        )
        self._diagnostics = Diagnostics(self, "")
        self._refused = ""
        self.create_subscription(PolicyStatus, "policy_node/status", self._flow.on_policy, qos.LATCHED)
        self.create_subscription(SafetyState, "safety_state", self._flow.on_arm, qos.LATCHED)
        receive_each(self, Bool, "success", self._flow.on_success)
        self.create_service(MarkSuccess, "mark_success", self._mark, callback_group=self.awaiting)
        for label in _BUTTONS:
            self.create_service(Trigger, f"~/{label}", partial(self._button, label), callback_group=self.awaiting)
        self.create_service(Trigger, "~/scene_ready", self._scene_ready)
        self.create_timer(0.5, self._diagnose)
        self._server = ActionServer(
            self,
            ExecuteInstruction,
            "execute_instruction",
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            callback_group=self.awaiting,
        )

    @property
    def finished(self) -> bool:
        """Whether no goal and no label is on its way."""
        return not self.configured or not self._flow.busy

    def cleanup(self) -> None:
        """Destroy the action: it is no entity that a node lists."""
        self._server.destroy()

    def deactivate(self) -> None:
        """A goal under way ends as if cancelled, and aborts."""
        self._flow.abandon(Ending("NODE_LOST", "node_lost", "episode_node was deactivated"))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _on_goal(self, goal: Any) -> GoalResponse:
        self._refused = self._refusal(goal)
        if self._refused:
            self.get_logger().warning(f"goal rejected: {self._refused}")
            return GoalResponse.REJECT
        self._flow.reserve(self._limits(goal.max_duration))
        return GoalResponse.ACCEPT

    def _refusal(self, goal: Any) -> str:
        if not self.active:
            return "episode_node is not active"
        if self._flow.busy:
            return "another instruction is running: cancel it first"
        if self._flow.emergency_stop:
            return "the emergency stop is engaged: call clear_emergency_stop first"
        if not goal.instruction:
            return "the instruction is empty"
        if not goal.max_duration >= 0.0 or not 0.0 < goal.speed_scale <= 1.0:
            return "max_duration must not be negative and speed_scale must be above 0 and at most 1"
        return ""

    def _limits(self, max_duration_s: float) -> RunLimits:
        duration_s = max_duration_s or self._value("max_duration_s")
        source: Literal["sim", "classifier"] = "sim" if self._value("use_sim_time") else "classifier"
        return RunLimits(duration_s, self._value("undo_window_s"), self._value("patience_s"), source)

    def _on_cancel(self, _: Any) -> CancelResponse:
        self._flow.end(Ending("CANCELED", "canceled", "cancelled by its client"))
        return CancelResponse.ACCEPT

    async def _execute(self, handle: Any) -> Any:
        run = await self._flow.carry_out(handle, self._value("operator_reset"))
        ending = run.ending(0.0)
        result = self._flow.result(run)
        if ending is None or ending.fault:
            self.get_logger().error(f"goal aborted, {result.reason}: {result.message}")
            handle.abort()
        elif ending.code == "CANCELED" and handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.succeed()
        return result

    async def _mark(self, request: Any, response: Any) -> Any:
        try:
            if not self.active:
                raise ValueError("episode_node is not active")
            run = await self._label(request)
        except ValueError as error:
            response.ok, response.message = False, str(error)
            return response
        response.ok, response.episode_id, response.outcome = True, run.episode_id, run.outcome
        return response

    async def _label(self, request: Any) -> EpisodeRun:
        wish = (request.label, request.note)
        if request.episode_id or not self._flow.under_way:
            return await self._flow.label_ended(request.episode_id, *wish, self._limits(0.0))
        return await self._flow.label(*wish, request.end, self._limits(0.0))

    async def _button(self, label: str, _: Any, response: Any) -> Any:
        marked = await self._mark(MarkSuccess.Request(label=label), MarkSuccess.Response())
        response.success, response.message = marked.ok, marked.message or f"{marked.episode_id}: {marked.outcome}"
        return response

    def _scene_ready(self, _: Any, response: Any) -> Any:
        response.success = self._flow.scene_ready()
        response.message = "" if response.success else "no goal is waiting for the scene"
        return response

    def _diagnose(self) -> None:
        self._diagnostics.publish(self._refused, {"phase": self._flow.phase, "active": self.active}, self._flow.phase)


def main() -> None:
    """Run the node until a signal."""
    run(EpisodeNode)
