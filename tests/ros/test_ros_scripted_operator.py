"""The scripted operator presses its buttons until the arm agrees, and takes over in no other episode than it meant."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pirl_ros.adapters import qos

pytestmark = pytest.mark.ros


class Arm:
    """Stands in for arm_node's buttons: answers `takeover` as told, and says who drives."""

    def __init__(self, probe: Any) -> None:
        from std_srvs.srv import Trigger

        from pirl_ros.adapters.interfaces import EpisodeEvent, SafetyState, StepOutcome

        self.pressed, self.before = list[str](), list[Callable[[], str]]()
        self.delay_s = 0.0
        """between what happens before an answer to a takeover and the answer"""
        for name in ("takeover", "hand_back"):
            probe.node.create_service(Trigger, f"arm_node/{name}", lambda _, reply, name=name: self._press(name, reply))
        self._events = probe.publisher(EpisodeEvent, "episode_events")
        self._outcomes = probe.publisher(StepOutcome, "step_outcomes")
        self._state = probe.publisher(SafetyState, "safety_state", qos.LATCHED)

    def _press(self, name: str, reply: Any) -> Any:
        self.pressed.append(name)
        if name == "takeover":
            reply.message = self.before.pop(0)() if self.before else ""
            time.sleep(self.delay_s)
        reply.success = not reply.message
        return reply

    def event(self, episode: str, event: int) -> None:
        from pirl_ros.adapters.interfaces import EpisodeEvent

        self._events.publish(EpisodeEvent(event=event, episode_id=episode))

    def change(self, episode: str, following: str) -> str:
        """End one and begin another."""
        from pirl_ros.adapters.interfaces import EpisodeEvent

        self.event(episode, EpisodeEvent.END)
        self.event(following, EpisodeEvent.START)
        return ""

    def play(self, count: int) -> None:
        from pirl_ros.adapters.interfaces import StepOutcome

        for index in range(count):
            self._outcomes.publish(StepOutcome(chunk_id="c", index=index))


def test_a_rejected_takeover_is_pressed_again_and_a_late_one_handed_back(probe: Any) -> None:
    from pirl_ros.adapters.interfaces import EpisodeEvent

    operator = probe.start("scripted_operator", takeover_after=2)
    arm = Arm(probe)

    def run(episode: str, pressed: list[str]) -> None:
        """Begin an episode and play until the buttons were pressed in this order; more presses are lawful on a busy
        machine, and outcomes may come before the episode's begin.
        """
        before = len(arm.pressed)
        arm.event(episode, EpisodeEvent.START)

        def found() -> bool:
            arm.play(1)
            since = iter(arm.pressed[before:])
            return all(button in since for button in pressed)

        probe.until(found, lambda: f"pressed {arm.pressed[before:]}, not {pressed}")

    arm.before = [lambda: "emergency stop: smoke", lambda: ""]
    run("first", ["takeover", "takeover"])
    # The arm agrees when the next episode has begun: the operator has not decided to drive that one.
    arm.before = [lambda: arm.change("second", "third")]
    arm.delay_s = 0.3
    run("second", ["takeover", "hand_back"])
    assert not arm.before, "the next episode began with the answer"
    operator.terminate()
    said = operator.communicate()[0]
    assert "takeover: rejected: emergency stop: smoke" in said
    # Of the first episode too, when the answer to its takeover comes after the second has begun.
    assert said.count("it came after its episode, handed back") >= 1
