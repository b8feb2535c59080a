"""How every node starts, brings itself up and ends: soon after SIGINT or SIGTERM, given once or twice."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

_WAKE_S = 0.2
_DRAIN_S = 0.1


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


def run(make_node: Callable[[], LifecycleNode], threads: int = 1) -> None:
    """Run one lifecycle node until a signal. With `autostart` it configures and activates itself."""
    starting = threading.Event()
    starting.set()
    with ros_until_signal(starting) as stop:
        node: Any = make_node()
        executor: Any = SingleThreadedExecutor() if threads == 1 else MultiThreadedExecutor(threads)
        executor.add_node(node)
        if node.declare_parameter("autostart", True).value:
            _bring_up(node)
        starting.clear()
        while not stop.is_set():
            executor.spin_once(timeout_sec=_WAKE_S)
        executor.remove_node(node)
        # Callbacks that were handed to the pool must not find their node destroyed.
        time.sleep(_DRAIN_S if threads > 1 else 0.0)
        executor.shutdown(timeout_sec=0.5)
        node.trigger_shutdown()
        node.destroy_node()


def _bring_up(node: Any) -> None:
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() is not TransitionCallbackReturn.SUCCESS:
            node.get_logger().error("autostart failed; the reason is above. `ros2 lifecycle set` can try again")
            return
