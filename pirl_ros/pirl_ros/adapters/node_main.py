"""Main function of a node: start, bring up, and prompt shutdown on SIGINT or SIGTERM, single or repeated.

The end of a process is the end of an arm's motion: an arm comes to rest before anything else is done, and what fails in
one node is logged and keeps no other from its end.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown

from pirl_ros.adapters.executor import RobotExecutor
from pirl_ros.adapters.lifecycle_node import ManagedNode, RCLError
from pirl_ros.adapters.parameters import declare, drop_unknown

_SWITCH_S = 5e-4
_FINISH_S = 4.0
"""longest wait for what a node has under way, e.g. the result of a goal"""
_SENT_S = 0.2
"""for what a node has finished to be sent"""


@contextmanager
def ros_until_signal(starting: threading.Event | None = None) -> Iterator[threading.Event]:
    """Initialise ROS; yields the event that a signal sets. Our handlers, because rclpy's end with an exception.

    While `starting` is set a signal ends the process at once: loading a simulator takes many seconds.
    """
    stop, told = threading.Event(), list[bool]()

    def on_signal(*_: object) -> None:
        if not told:  # a signal that comes while the event is being set must not set it again: its lock is held
            told.append(True)
            stop.set()
        if starting is not None and starting.is_set():
            raise SystemExit(0)

    _initialise()
    _handle_signals(on_signal)
    try:
        yield stop
    finally:
        # A handler of ours would be replaced by the default while Python finalises; one that ignores stays.
        _handle_signals(signal.SIG_IGN)
        try_shutdown()


def run(*makers: Callable[[], ManagedNode]) -> None:
    """Run lifecycle nodes in one executor until a signal. With `autostart` they configure and activate themselves.

    A parameter of another type or a failed autostart ends the process with status 1.

    One thread: no callback of ours waits for anything, and an executor of rclpy with several threads costs more CPU
    than all our callbacks together.
    """
    # The thread that talks to the server would wait 5 ms for each turn beside the executor's.
    sys.setswitchinterval(_SWITCH_S)
    starting = threading.Event()
    starting.set()
    with ros_until_signal(starting) as stop:
        executor = RobotExecutor()
        nodes = _make(makers)
        for node in nodes:
            executor.add_node(node)
        up = all(_bring_up(node) for node in nodes)
        starting.clear()
        try:
            while up and not stop.is_set():
                executor.work()
        finally:
            clean = _end(executor, nodes)
    if not (up and clean):
        sys.exit(1)


def _initialise() -> None:
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except RCLError as error:
        words = re.sub(r", at \S+:\d+", "", " ".join(str(error).split()))
        if "ros__parameters" in words:
            words += " (a ROS parameter file is NODE: ros__parameters: ...; a robot profile is given as profile:=FILE)"
        get_logger("pirl_ros").fatal(words)
        raise SystemExit(1) from None


@contextmanager
def ends_on_mistake() -> Iterator[None]:
    """Log a ValueError, a user's mistake in a parameter, in one line and end the process with status 1."""
    try:
        yield
    except ValueError as error:
        get_logger("pirl_ros").fatal(str(error))
        raise SystemExit(1) from None


def _make(makers: Sequence[Callable[[], ManagedNode]]) -> list[ManagedNode]:
    with ends_on_mistake():
        nodes = [make() for make in makers]
        for node in nodes:
            declare(node, "autostart", True, "configure and activate at start", settable="at start")
    for sentence in drop_unknown(nodes):
        nodes[0].get_logger().warning(sentence)
    return nodes


def _handle_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _bring_up(node: ManagedNode) -> bool:
    """Configure and activate unless autostart is off. False: it failed."""
    if not node.get_parameter("autostart").value:
        return True
    for transition in (node.trigger_configure, node.trigger_activate):
        if transition() is not TransitionCallbackReturn.SUCCESS:
            node.get_logger().fatal(
                "autostart failed for the reason above: the process ends; autostart:=false keeps it"
            )
            return False
    return True


def _end(executor: RobotExecutor, nodes: list[ManagedNode]) -> bool:
    """Bring nodes to rest, arms first, let them finish what is under way, then shut down. False: something failed.

    The executor works on until then: a goal's result takes services of the other nodes.
    """
    ordered = sorted(nodes, key=lambda node: not node.moves_an_arm)
    went_well = [_tried(node, node.rest) for node in ordered]
    if not all(node.finished for node in nodes):
        went_well += _work(executor, ordered[0], _FINISH_S, lambda: all(node.finished for node in nodes))
        went_well += _work(executor, ordered[0], _SENT_S)
    for node in ordered:
        went_well.append(_tried(node, node.end))
    for node in ordered:
        executor.remove_node(node)
    executor.shutdown(timeout_sec=0.5)
    for node in ordered:
        went_well.append(_tried(node, node.destroy_node))
    return all(went_well)


def _work(
    executor: RobotExecutor, node: ManagedNode, limit_s: float, done: Callable[[], bool] = lambda: False
) -> list[bool]:
    went_well, deadline = [True], time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        went_well.append(_tried(node, executor.work))
    return went_well


def _tried(node: ManagedNode, step: Callable[[], object]) -> bool:
    """Take a step of the end; one that raises is logged and answered with False."""
    try:
        step()
    except Exception:
        node.get_logger().error(f"error during process shutdown: {traceback.format_exc()}")
        return False
    return True
