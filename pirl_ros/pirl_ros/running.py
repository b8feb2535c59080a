"""How every node starts, brings itself up and ends: soon after SIGINT or SIGTERM, given once or twice."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from pirl_ros.executor import RobotExecutor

_SWITCH_S = 5e-4


@contextmanager
def ros_until_signal(starting: threading.Event | None = None) -> Iterator[threading.Event]:
    """Initialise ROS; yields the event that a signal sets. Our handlers, because rclpy's end with an exception.

    While `starting` is set a signal ends the process at once: loading a simulator takes many seconds.
    """
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        stop.set()
        if starting is not None and starting.is_set():
            raise SystemExit(0)

    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        try_shutdown()


def run(*makers: Callable[[], LifecycleNode]) -> None:
    """Run lifecycle nodes in one executor until a signal. With `autostart` they configure and activate themselves.

    One thread: no callback of ours waits for anything, and an executor of rclpy with several threads costs more CPU
    than all our callbacks together.
    """
    # The thread that talks to the server would wait 5 ms for each turn beside the executor's.
    sys.setswitchinterval(_SWITCH_S)
    starting = threading.Event()
    starting.set()
    with ros_until_signal(starting) as stop:
        executor: Any = RobotExecutor()
        nodes: list[Any] = [make() for make in makers]
        for node in nodes:
            executor.add_node(node)
            if node.declare_parameter("autostart", True).value:
                _bring_up(node)
        starting.clear()
        while not stop.is_set():
            executor.work()
        for node in nodes:
            executor.remove_node(node)
        executor.shutdown(timeout_sec=0.5)
        for node in nodes:
            node.trigger_shutdown()
            node.destroy_node()


def _bring_up(node: Any) -> None:
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() is not TransitionCallbackReturn.SUCCESS:
            node.get_logger().error("autostart failed; the reason is above. `ros2 lifecycle set` can try again")
            return
