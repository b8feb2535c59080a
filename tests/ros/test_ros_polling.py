"""Subscriptions that wake nobody, in a real executor: what is handed on, and what is thrown away."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import Patience, completed

IMAGES_PROFILE = Path(__file__).parents[2] / "launch" / "params" / "fastdds_images.xml"


@pytest.fixture
def node(ros: Any) -> Iterator[Any]:
    from rclpy.node import Node

    node = Node("polling", namespace=f"/polling_{time.monotonic_ns()}")
    yield node
    node.destroy_node()


class Line:
    """A publisher, what comes through a subscription in the group given, and a second one that hears everything."""

    def __init__(self, node: Any, group: Any) -> None:
        from std_msgs.msg import String

        from pirl_ros.adapters.executor import RobotExecutor

        self._kind, self._node = String, node
        self.received: list[str] = []
        self._out = node.create_publisher(String, "words", 10)
        node.create_subscription(
            String, "words", lambda message: self.received.append(message.data), 10, callback_group=group
        )
        self._arrived: list[str] = []
        node.create_subscription(String, "words", lambda message: self._arrived.append(message.data), 10)
        node.create_timer(0.01, lambda: None)
        self._executor: Any = RobotExecutor()
        self._executor.add_node(node)
        self.until(lambda: self._out.get_subscription_count() == 2)

    def say(self, word: str) -> None:
        """Publish, and wait until the middleware has it."""
        self._out.publish(self._kind(data=word))
        self.until(lambda: self._arrived[-1:] == [word])

    def until(self, condition: Callable[[], bool]) -> None:
        patience = Patience(30.0)
        while not condition():
            assert patience.left_s > 0
            self._executor.work()

    def work(self) -> None:
        for _ in range(10):
            self._executor.work()


def test_a_polled_message_waits_until_it_is_taken(node: Any) -> None:
    from pirl_ros.adapters.gated_subscriptions import GatedGroup

    polled = GatedGroup()
    line = Line(node, polled)
    line.say("early")
    line.work()
    assert line.received == []
    assert not polled.received
    assert polled.take() == 1
    assert line.received == ["early"]


def test_what_came_while_nothing_was_wanted_is_thrown_away(node: Any) -> None:
    from pirl_ros.adapters.gated_subscriptions import OnDemandGroup

    want = [False]
    wanted = OnDemandGroup(lambda: want[0])
    wanted.open = True
    line = Line(node, wanted)
    line.say("early")
    line.work()
    assert (line.received, wanted.received, wanted.young) == ([], False, False)
    want[0] = True
    line.work()
    assert (line.received, wanted.received, wanted.young) == ([], True, True)
    line.say("in time")
    line.until(lambda: bool(line.received))
    assert line.received == ["in time"]
    assert wanted.received
    want[0] = False
    line.work()
    line.say("late")
    line.work()
    assert (line.received, wanted.received) == (["in time"], False)


def test_the_same_without_the_condition_hands_on_what_is_old(node: Any) -> None:
    """The control of the test above: nothing but the condition throws away."""
    from pirl_ros.adapters.gated_subscriptions import GatedGroup

    polled = GatedGroup()
    line = Line(node, polled)
    line.say("early")
    polled.open = True
    line.until(lambda: bool(line.received))
    assert line.received == ["early"]


@pytest.mark.parametrize("broken", [False, True])
def test_fast_dds_takes_the_profile_for_pictures(ros: Any, tmp_path: Path, broken: bool) -> None:
    """A profile that it cannot read is only complained about."""
    text = IMAGES_PROFILE.read_text()
    path = tmp_path / "profile.xml"
    path.write_text(text.replace("<type>SHM</type>", "<type>PIGEON</type>") if broken else text)
    command = [sys.executable, "-c", "import rclpy, rclpy.node; rclpy.init(); rclpy.node.Node('one')"]
    environment = {name: value for name, value in os.environ.items() if name != "FASTDDS_BUILTIN_TRANSPORTS"}
    environment["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(path)
    said = completed(command, env=environment, limit_s=60)
    assert ("XMLPARSER" in said.stdout + said.stderr) == broken
