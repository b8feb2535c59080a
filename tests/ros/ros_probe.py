"""A node of the test process, and the nodes under test as processes of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from patience import Patience, output_of
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from pirl_ros.adapters import qos

ROOT = Path(__file__).parents[2]
PROFILE_PATH = ROOT / "launch" / "params" / "panda_sim.yaml"
LIBRARY = ROOT / ".ros" / "install" / "pirl_ros" / "lib" / "pirl_ros"
ROBOT_SIDE = ("robot_node", "policy_node", "arm_node", "episode_node")
PATIENCE_S = 30.0
"""longest wait for anything on an idle machine, of a test that passes far below it"""


class Probe:
    """Collects what is published, publishes, calls services; `processes` are ended with it."""

    def __init__(self, namespace: str) -> None:
        self.namespace, self.patience_s, self.library = namespace, PATIENCE_S, LIBRARY
        self.node = Node("probe", namespace=namespace)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.clients: dict[str, Any] = {}
        self.processes: list[subprocess.Popen[str]] = []
        self.environment: dict[str, str] = {}
        """what processes to come get beside that of the test"""

    def start(self, name: str, **parameters: object) -> subprocess.Popen[str]:
        """Start an executable of pirl_ros in this namespace."""
        given = {"profile": PROFILE_PATH, **parameters}
        # The shipped simulated arm takes no orders in real time.
        if given["profile"] == PROFILE_PATH and name in ROBOT_SIDE:
            given = {"use_sim_time": True, **given}
        command = [str(LIBRARY / name), "--ros-args", "-r", f"__ns:={self.namespace}"]
        for key, value in given.items():
            command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
        return self.run(command)

    def run(self, command: list[str]) -> subprocess.Popen[str]:
        """Start any process that ends with the probe."""
        path = f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
        environment = os.environ | {"PYTHONPATH": path} | self.environment
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.processes.append(process)
        return process

    def listen(self, kind: Any, *topics: str, quality: Any = qos.OUTCOME) -> None:
        """Keep every message of these topics in `seen`."""
        for topic in topics:
            self.node.create_subscription(kind, topic, self.seen[topic].append, quality)

    def publisher(self, kind: Any, topic: str, quality: Any = qos.OUTCOME) -> Any:
        """Return a publisher that somebody listens to."""
        publisher = self.node.create_publisher(kind, topic, quality)
        self.until(lambda: publisher.get_subscription_count() > 0, f"nobody subscribed to {topic}")
        return publisher

    def call(self, kind: Any, service: str, **fields: Any) -> Any:
        """Call a service and return its answer."""
        client = self.clients.get(service) or self.clients.setdefault(service, self.node.create_client(kind, service))
        self.until(client.service_is_ready, f"no service {service}")
        futures = [client.call_async(kind.Request(**fields))]
        # A server that has not discovered the client yet sends its reply to nobody: a getter is called again.
        again_s = time.monotonic() + self.patience_s / 6

        def answered() -> bool:
            nonlocal again_s
            if "Get" in kind.__name__ and time.monotonic() > again_s:
                futures.append(client.call_async(kind.Request(**fields)))
                again_s += self.patience_s / 6
            return any(future.done() for future in futures)

        self.until(answered, f"no response from {service}")
        return next(future.result() for future in futures if future.done())

    def change(self, node: str, transition: int) -> int:
        """Ask a node for a lifecycle transition and return the state that it is in then."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState, GetState

        assert self.call(ChangeState, f"{node}/change_state", transition=Transition(id=transition)).success
        return int(self.call(GetState, f"{node}/get_state").current_state.id)

    def set_parameter(self, node: str, name: str, value: float) -> str:
        """Set a double parameter of a node; returns '' or why it was rejected."""
        from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
        from rcl_interfaces.srv import SetParameters

        parameter = Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))
        result = self.call(SetParameters, f"{node}/set_parameters", parameters=[parameter]).results[0]
        return "" if result.successful else result.reason or "rejected"

    def until(self, condition: Callable[[], bool], what: str | Callable[[], str]) -> None:
        """Spin until the condition holds; fails with `what`, called by then, when it does not."""
        patience = Patience(self.patience_s)
        while not condition():
            assert patience.left_s > 0, f"{what if isinstance(what, str) else what()}; {self.complaints()}"
            for process in self.processes:
                assert process.poll() in (None, 0), f"a node died: {process.communicate()[0]}"
            self.executor.spin_once(timeout_sec=0.02)

    def complaints(self) -> list[str]:
        """What the last diagnostics and the arm say, where they are listened to."""
        arrays = self.seen.get("/diagnostics", [])[-5:]
        told = [f"{status.name}: {status.message}" for array in arrays for status in array.status]
        return told + [str(state) for state in self.seen.get("safety_state", [])[-1:]]

    def more(self, topic: str, count: int) -> list[Any]:
        """Wait for `count` more messages of a topic that is listened to and return them."""
        before = len(self.seen[topic])
        self.until(lambda: len(self.seen[topic]) >= before + count, f"{topic} gave too few messages")
        return self.seen[topic][before:]

    def close(self) -> None:
        """End the processes and the node."""
        for process in self.processes:
            process.terminate()
        try:
            for process in self.processes:
                output_of(process, PATIENCE_S)
        finally:
            for process in self.processes:
                process.kill()
        self.executor.shutdown()
        self.node.destroy_node()


def warnings_of(probe: Probe, node: str) -> str:
    """All diagnostics of a node so far that are not OK, as one text."""
    statuses = [status for array in probe.seen["/diagnostics"] for status in array.status]
    mine = [status for status in statuses if status.name == f"{probe.namespace}/{node}"]
    return " | ".join(status.message for status in mine if status.level != b"\x00")


def initialise() -> None:
    """Initialise ROS in the test process."""
    rclpy.init()
