"""Runs episodes one after the other: reset, start, wait for success or the time limit, stop with the outcome."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from pirl_ros.adapters import qos
from pirl_ros.adapters.discovery import matched_publishers
from pirl_ros.adapters.gated_subscriptions import GatedGroup
from pirl_ros.adapters.interfaces import ResetEnvironment, SafetyState, StartEpisode, StepOutcome, StopEpisode
from pirl_ros.adapters.node_main import ends_on_mistake, ros_until_signal
from pirl_ros.adapters.operator_inputs import receive_each
from pirl_ros.adapters.parameters import declare, drop_unknown
from pirl_ros.episode.summary import EpisodeRecord, write_summary
from pirl_ros.sensing.sensor_messages import image_to_rgb

_LAST_CALL_S = 3.0
"""for stop_episode after a signal"""


class EpisodeRunner(Node):
    """Drives the other nodes through their services; sees success and progress on their topics."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__("run_episodes", automatically_declare_parameters_from_overrides=True)
        self.episodes = declare(self, "episodes", 1, "number of episodes to run")
        self.first_seed = declare(self, "first_seed", 0, "seed of the first reset; each further one adds 1")
        self._max_steps = declare(self, "max_steps", 48, "an episode fails after this many played actions")
        self._human_steps = declare(self, "human_steps", 100, "and after this many steps that a human drove")
        self._time_limit_s = declare(self, "time_limit_s", 60.0, "an episode fails after this time, s")
        self._patience_s = declare(self, "patience_s", 60.0, "time-out for nodes and server, s")
        self._pause_path = declare(self, "pause_path", "", "no episode begins while this file exists; empty: none")
        self._instruction = declare(self, "instruction", "", "instruction to use instead of the task's own")
        self.summary_path = declare(self, "summary_path", "", "JSON file for the result; empty: none")
        self._record_dir = declare(self, "record_dir", "", "folder for the frames of recorded episodes; empty: none")
        self._record_seeds = declare(self, "record_seeds", [0], "seeds of the episodes to record")
        self._stop_event = stop
        self._spinner: Any = SingleThreadedExecutor()
        self._spinner.add_node(self)
        self._success, self._steps, self._driven, self._frames = False, 0, 0, list[Any]()
        self._recording = self._reported_to = False
        self._remote = {
            name: self.create_client(kind, name)
            for name, kind in (
                ("reset_environment", ResetEnvironment),
                ("start_episode", StartEpisode),
                ("stop_episode", StopEpisode),
            )
        }
        camera = declare(self, "camera", "camera/base/image", "recorded topic")
        for sentence in drop_unknown([self]):
            self.get_logger().warning(sentence)
        # Read with each action that is reported, and at least twenty times a second.
        self._polled = GatedGroup()
        receive_each(self, Bool, "success", self._on_success, group=self._polled)
        self._outcomes = self.create_subscription(StepOutcome, "step_outcomes", self._on_outcome, qos.OUTCOME)
        self.create_subscription(SafetyState, "safety_state", self._on_arm, qos.LATCHED)
        if self._record_dir:
            self.create_subscription(Image, camera, self._on_image, qos.IMAGE)

    def _on_success(self, message: Any) -> None:
        self._success = bool(message.data)

    def _on_outcome(self, outcome: Any) -> None:
        # Steps of a stop belong to no chunk: max_steps counts what the policy did.
        self._steps += bool(outcome.chunk_id)
        self._driven += outcome.source == StepOutcome.SOURCE_HUMAN

    def _on_arm(self, state: Any) -> None:
        known = self.get_fully_qualified_name() in state.outcome_readers
        self._reported_to = known and matched_publishers(self, self._outcomes) > 0

    def _on_image(self, message: Any) -> None:
        if self._recording:
            self._frames.append(image_to_rgb(message))

    def wait_for_nodes(self) -> None:
        """Wait until the other nodes' services are there and the arm knows us. TimeoutError names what is missing."""
        for name, client in self._remote.items():
            if not self._wait(client.service_is_ready, self._patience_s):
                raise TimeoutError(f"service '{name}' did not appear within {self._patience_s:g} s")
        # We may know the arm before it knows us: what it reports until then would be missing from the count of steps.
        if not self._wait(lambda: self._reported_to, self._patience_s):
            raise TimeoutError(f"no arm_node publishes step_outcomes within {self._patience_s:g} s")

    def wait_for_leave(self) -> None:
        """Wait while the pause file exists. InterruptedError: a signal came."""
        while self._pause_path and Path(self._pause_path).exists():
            self._wait(lambda: False, 0.5)

    def run_episode(self, seed: int) -> EpisodeRecord:
        """Run one episode. TimeoutError: a node or the server cannot be had."""
        reset = self._call("reset_environment", ResetEnvironment.Request(seed=seed))
        instruction = self._instruction or reset.instruction
        request = StartEpisode.Request(
            instruction=instruction, metadata_keys=["seed", "label_source"], metadata_values=[str(seed), "sim"]
        )
        episode_id = self._call("start_episode", request).episode_id
        self._success, self._steps, self._driven, self._frames = False, 0, 0, []
        self._recording = bool(self._record_dir) and seed in self._record_seeds
        began = time.monotonic()
        try:
            self._wait(self._over, self._time_limit_s)
        finally:
            success = self._success
            self._recording = False
            reason = "success" if success else "time_limit"
            receipt = self._end(success, reason)
        self._save_frames(seed)
        return EpisodeRecord(
            seed, episode_id, instruction, success, reason, self._steps, time.monotonic() - began, receipt.path
        )

    def _over(self) -> bool:
        ended = self._steps >= self._max_steps or self._driven >= self._human_steps
        return (self._success and self._steps + self._driven > 0) or ended

    def _end(self, success: bool, reason: str) -> Any:
        interrupted = self._stop_event.is_set()
        request = StopEpisode.Request(
            outcome="unlabeled" if interrupted else "success" if success else "failure",
            label_source="operator" if interrupted else "sim",
            reason="operator" if interrupted else reason,
        )
        return self._call("stop_episode", request, at_end=True)

    def _save_frames(self, seed: int) -> None:
        if self._frames:
            folder = Path(self._record_dir)
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(folder / f"episode_{seed}.npz", frames=np.stack(self._frames))

    def _call(self, name: str, request: Any, at_end: bool = False) -> Any:
        """Call a service until it agrees; what it rejects with is printed once per reason.

        A signal ends it, but `at_end`: then its last call still has a moment.
        """
        deadline, said = time.monotonic() + self._patience_s, ""
        while True:
            future = self._remote[name].call_async(request)
            limit_s = _LAST_CALL_S if at_end and self._stop_event.is_set() else self._patience_s
            self._wait(future.done, limit_s, heed_signal=not at_end)
            result = future.result() if future.done() else None
            if result is not None and result.ok:
                return result
            reason = result.message if result is not None else "no answer"
            if reason != said:
                self.get_logger().warning(f"{name}: {reason}")
            said = reason
            if time.monotonic() > deadline or (at_end and self._stop_event.is_set()):
                raise TimeoutError(f"{name}: {reason}")
            self._wait(lambda: False, 1.0, heed_signal=not at_end)

    def _wait(self, condition: Callable[[], bool], limit_s: float, heed_signal: bool = True) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            if heed_signal and self._stop_event.is_set():
                raise InterruptedError
            if time.monotonic() > deadline:
                return False
            self._spinner.spin_once(timeout_sec=0.05)
            self._polled.take()
        return True


def _run_all(node: EpisodeRunner, records: list[EpisodeRecord]) -> tuple[int, float]:
    """Fill `records`; return the exit code and the seconds from the first reset on."""
    began = time.monotonic()
    try:
        node.wait_for_nodes()
        began = time.monotonic()
        for number in range(node.episodes):
            node.wait_for_leave()
            records.append(node.run_episode(node.first_seed + number))
            print(records[-1].line(number + 1, node.episodes), flush=True)
    except TimeoutError as error:
        print(f"run aborted: {error}", file=sys.stderr, flush=True)
        return 1, time.monotonic() - began
    except InterruptedError:
        print("interrupted", file=sys.stderr, flush=True)
        return 130, time.monotonic() - began
    return 0, time.monotonic() - began


def main() -> None:
    """Run the episodes; exit code 0: all were run, 1: a node or the server is missing, 130: a signal came."""
    records: list[EpisodeRecord] = []
    with ros_until_signal() as stop:
        with ends_on_mistake():
            node = EpisodeRunner(stop)
        code, wall_s = _run_all(node, records)
        if node.summary_path:
            write_summary(node.summary_path, records, code == 0, wall_s)
        node.destroy_node()
    sys.exit(code)
