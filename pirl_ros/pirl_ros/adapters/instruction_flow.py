"""Steps of one instruction over ROS: reset, start, observe, stop, arm at rest. Coroutines that block no executor."""

from __future__ import annotations

import time
from typing import Any

from rclpy.task import Future

from pirl_ros.adapters.awaitables import call_service, sleep
from pirl_ros.adapters.episode_services import publish_event
from pirl_ros.adapters.interfaces import (
    EpisodeEvent,
    ExecuteInstruction,
    LabelEpisode,
    PolicyStatus,
    ResetEnvironment,
    SafetyState,
    StartEpisode,
    StopEpisode,
)
from pirl_ros.episode.instruction_run import Ending, EpisodeRun, RunLimits

_FEEDBACK_S = 0.1
_REST_S = 2.0
"""longest wait for the arm to come to rest after an episode"""
_LAST_CALL_S = 2.0
"""longest wait for another node when this one goes"""
_MOVING = ("playing", "decelerating")


class EpisodeFlow:
    """Carries out one instruction at a time, and labels an episode started elsewhere."""

    def __init__(self, node: Any, start: Any, stop: Any, reset: Any, pause: Any, label: Any, events: Any) -> None:
        self._node, self._start, self._stop, self._reset, self._pause = node, start, stop, reset, pause
        self._label, self._events = label, events
        self._last_id = ""
        self._policy, self._arm = PolicyStatus(), SafetyState()
        self._run: EpisodeRun | None = None
        self._over = self._scene = Future()
        self._handle: Any = None
        self._path, self._steps = "", 0
        self.phase = "idle"

    @property
    def busy(self) -> bool:
        """Whether an instruction is being carried out."""
        return self._run is not None

    @property
    def under_way(self) -> bool:
        """Whether an episode or an instruction is running, started from here or elsewhere."""
        return self.busy or bool(self._policy.episode_id)

    @property
    def emergency_stop(self) -> bool:
        """Whether the arm says that its emergency stop is engaged."""
        return bool(self._arm.emergency_stop)

    def reserve(self, limits: RunLimits) -> EpisodeRun:
        """Occupy the flow for the next instruction."""
        self._run = EpisodeRun(limits)
        return self._run

    def end(self, ending: Ending) -> None:
        """End what is under way, if anything is."""
        if self._run is not None:
            self._run.end(ending)
            self._look()

    def abandon(self, ending: Ending) -> None:
        """End what is under way for a node that goes: other nodes, which may be gone too, are waited for briefly."""
        if self._run is not None:
            self._run.hurry(_LAST_CALL_S)
        self.end(ending)

    def on_policy(self, status: Any) -> None:
        """Policy node's status."""
        self._policy = status
        if self._run is not None and not self._run.paused:
            self._run.policy_reported(status.reason, time.monotonic())
            self._look()

    def on_arm(self, state: Any) -> None:
        """Arm node's safety state."""
        if self._run is not None:
            # The latch of an earlier episode opens with the start of this one.
            latched = state.latched and state.episode_id == self._run.episode_id != ""
            self._run.arm_reported(state.emergency_stop, latched, state.reason, time.monotonic())
            if state.control_source != self._arm.control_source:
                self._tell(EpisodeEvent.TAKEOVER, control_source=state.control_source)
            self._look()
        self._arm = state

    def on_success(self, message: Any) -> None:
        """The task's own report."""
        if self._run is not None:
            self._run.signal(message.data)
            self._look()

    def scene_ready(self) -> bool:
        """The operator has reset the scene; False when no goal waits for it."""
        if self.phase != "resetting" or self._scene.done():
            return False
        self._scene.set_result(None)
        return True

    async def carry_out(self, handle: Any, operator_reset: bool) -> EpisodeRun:
        """Run the goal and return its outcome."""
        run, goal, self._handle = self._run, handle.request, handle
        assert run is not None
        timer = self._node.create_timer(_FEEDBACK_S, self._look)
        self._over, self._path, self._steps = Future(), "", 0
        try:
            await self._reset_scene(goal, operator_reset)
            if run.ending(time.monotonic()) is None:
                await self._begin(goal, run)
            if run.episode_id:
                self.phase = "running"
                self._look()
                await self._over
                await self._finish(run, keep=goal.record)
        finally:
            self._node.destroy_timer(timer)
            self._run, self._handle, self.phase = None, None, "idle"
        return run

    async def label(self, label: str, note: str, end: bool, limits: RunLimits) -> EpisodeRun:
        """Label what is under way, or stop an episode that was started by service with it. ValueError: why not."""
        run = self._run
        if run is not None:
            run.mark(label, end, time.monotonic())
            if run.paused:
                self._pause.call_async(self._pause.srv_type.Request(data=True))
            self._tell(EpisodeEvent.LABEL, outcome=run.outcome, reason=note)
            self._look()
            return run
        if not end or label == "undo":
            raise ValueError("an episode started by service is labelled once, when it ends")
        run = self.reserve(limits)
        try:
            run.begin(self._policy.episode_id, time.monotonic())
            run.mark(label, end, time.monotonic())
            run.end(Ending("NONE", "label"))
            await self._finish(run, keep=True)
        finally:
            self._run = None
        return run

    async def label_ended(self, episode_id: str, label: str, note: str, limits: RunLimits) -> EpisodeRun:
        """Label a published episode, the last one when no id is given, or take its label back. ValueError: why not."""
        run = EpisodeRun(limits)
        run.begin(episode_id or self._last_id, time.monotonic())
        if not run.episode_id:
            raise ValueError("no episode is running, and none has ended since this node started")
        if label == "discard":
            raise ValueError(f"episode {run.episode_id} is already published: delete it on the server")
        if label != "undo":
            run.mark(label, True, time.monotonic())
        request = LabelEpisode.Request(
            episode_id=run.episode_id, outcome=run.outcome, label_source="operator", note=note
        )
        answered = await call_service(self._node, self._label, request, lambda: limits.patience_s)
        if answered is None or not answered.ok:
            raise ValueError("no response from label_episode" if answered is None else answered.message)
        self._tell(EpisodeEvent.LABEL, episode_id=run.episode_id, outcome=run.outcome, reason=note)
        return run

    async def _reset_scene(self, goal: Any, operator_reset: bool) -> None:
        self.phase = "resetting"
        assert self._run is not None
        if goal.seed >= 0:
            reset = await self._ask(self._reset, ResetEnvironment.Request(seed=goal.seed))
            if not reset.ok:
                self._run.end(Ending("RESET_FAILED", "refused", reset.message))
        if operator_reset and self._run.ending(time.monotonic()) is None:
            self._scene = Future()
            await self._scene
        self._tell(EpisodeEvent.RESET, seed=goal.seed)

    async def _begin(self, goal: Any, run: EpisodeRun) -> None:
        self.phase = "starting"
        request = StartEpisode.Request(
            instruction=goal.instruction,
            alias=goal.alias,
            speed_scale=goal.speed_scale,
            metadata_keys=["seed"] if goal.seed >= 0 else [],
            metadata_values=[str(goal.seed)] if goal.seed >= 0 else [],
        )
        started = await self._ask(self._start, request)
        if started.ok:
            run.begin(started.episode_id, time.monotonic())
        else:
            run.end(Ending("START_REFUSED", "refused", started.message))

    async def _finish(self, run: EpisodeRun, keep: bool) -> None:
        self.phase = "ending"
        ending = run.ending(time.monotonic())
        assert ending is not None
        request = StopEpisode.Request(
            outcome="unlabeled" if run.outcome == "discard" else run.outcome,
            label_source=run.label_source,
            reason=ending.end_reason,
            discard=not keep or run.outcome == "discard",
        )
        stopped = await self._ask(self._stop, request)
        self._path, self._steps = stopped.path, stopped.steps
        self._last_id = run.episode_id if stopped.ok and not request.discard else ""
        if not stopped.ok:
            run.supersede(Ending("STOP_REFUSED", "refused", stopped.message))
        deadline = time.monotonic() + _REST_S
        while self._arm.mode in _MOVING and time.monotonic() < deadline:
            await sleep(self._node, _FEEDBACK_S)

    async def _ask(self, client: Any, request: Any) -> Any:
        run = self._run
        assert run is not None
        reply = await call_service(self._node, client, request, lambda: run.limits.patience_s)
        silent = f"no response from {client.srv_name} within {run.limits.patience_s:g} s"
        return client.srv_type.Response(ok=False, message=silent) if reply is None else reply

    def _look(self) -> None:
        run, now_s = self._run, time.monotonic()
        if run is None:
            return
        if run.ending(now_s) is not None:
            for waiting in (self._over, self._scene):
                if not waiting.done():
                    waiting.set_result(None)
        if self._handle is not None and self._handle.is_active:
            self._handle.publish_feedback(self._feedback(run, now_s))

    def _feedback(self, run: EpisodeRun, now_s: float) -> Any:
        return ExecuteInstruction.Feedback(
            phase=self.phase,
            elapsed=run.elapsed_s(now_s),
            steps=self._policy.steps,
            queue_depth=self._arm.queue_depth,
            action_age=self._arm.action_age,
            round_trip=self._policy.round_trip_ms / 1e3,
            control_source=self._arm.control_source,
            policy_version=self._policy.policy_version,
            episode_id=run.episode_id,
        )

    def result(self, run: EpisodeRun) -> Any:
        """Return the action's result."""
        ending = run.ending(time.monotonic())
        assert ending is not None
        result = ExecuteInstruction.Result
        return result(
            outcome=run.outcome,
            code=getattr(result, ending.code),
            reason=ending.reason,
            message=ending.message,
            episode_id=run.episode_id,
            path=self._path,
            steps=self._steps,
        )

    def _tell(self, event: int, **fields: Any) -> None:
        fields.setdefault("episode_id", self._run.episode_id if self._run is not None else "")
        publish_event(self._node, self._events, event, **fields)
