"""The simulator as a robot: publishes sensors and /clock, subscribes to joint commands, on a real arm's topics."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from pirl_contract.schema import Vector
from pirl_ros.adapters import qos
from pirl_ros.adapters.diagnostics import Diagnostics
from pirl_ros.adapters.interfaces import ResetEnvironment
from pirl_ros.adapters.lifecycle_node import ManagedNode
from pirl_ros.adapters.node_main import run
from pirl_ros.adapters.parameters import declare, declare_profile, read_profile
from pirl_ros.adapters.simulated_arm import RenderDelay, SimulatedArm, load_simulator
from pirl_ros.control.gripper import gripper_action
from pirl_ros.messages.controller_messages import first_positions
from pirl_ros.messages.pirl_messages import ns_to_stamp
from pirl_ros.sensing.sensor_messages import fill_image, fill_pose

_DEFAULT_IMAGE_SIZE = 64
_PATIENCE_S = 0.25
"""for the next command, once one has come: what computes it may share a busy machine"""


class SimArmNode(ManagedNode):
    """Steps the simulator at the profile's rate on a wall timer, with the newest command; without one it holds.

    Simulated time starts at the wall's, so that it never goes back when the node is started again; each step and each
    reset takes one control period of it, however long they really took. Its sensor messages are stamped with it.

    With `step_on_command` a step is taken as soon as arm and gripper have their targets, so that an episode runs as
    fast as the nodes and the server compute. Simulated time then stands still while the policy infers: a delay that a
    real arm has is left out. The timer steps when no command has come for a quarter of a second, or
    from a reset to the first command for a period. `arm_node` needs the same parameter.
    """

    def __init__(self) -> None:
        super().__init__("sim_arm_node")
        declare_profile(self)
        declare(self, "simulator", "pirl_sim.maniskill.sim_robot:make_robot", "module:function of the simulated arm")
        declare(self, "task", "PushCube-v1", "task name, passed to the simulator")
        declare(self, "step_on_command", False, "true: step when commanded, faster than real time")

    def configure(self) -> None:
        """Load the simulator and create the topics. ValueError: it cannot start, or is not the profile's robot."""
        self._profile = read_profile(self)
        if self._profile.arms:
            raise ValueError(f"the simulated arm is one, '{self._profile.robot}' has {len(self._profile.arms)}")
        self._robot = self._load()
        self._arm_target: Vector | None = None
        self._gripper_target: float | None = None
        self._on_command = self.get_parameter("step_on_command").value
        self._steps = self._overruns = 0
        self._stepped_s, self._commanded = 0.0, True
        self._now_ns, self._period_ns = time.time_ns(), round(1e9 / self._profile.rate_hz)
        self._diagnostics = Diagnostics(self, self._profile.robot)
        self._make_publishers()
        arm, gripper = self._profile.command, self._profile.gripper
        self.create_subscription(JointTrajectory, arm.topic, self._on_arm, qos.COMMAND)
        self.create_subscription(JointTrajectory, gripper.topic, self._on_gripper, qos.COMMAND)
        self.create_service(ResetEnvironment, "reset_environment", self._reset)
        self.create_timer(1.0 / self._profile.rate_hz, self._tick)
        self._delay, self._rendered = RenderDelay(), False
        self._unrendered = self.create_timer(self._delay.s, self._publish_images, autostart=False)
        self.create_timer(1.0, self._diagnose)

    def cleanup(self) -> None:
        """Free the simulator."""
        self._robot.close()

    def _load(self) -> SimulatedArm:
        cameras = self._profile.cameras
        size = cameras[0].height if cameras else _DEFAULT_IMAGE_SIZE
        spec, task = self.get_parameter("simulator").value, self.get_parameter("task").value
        robot = load_simulator(spec, task, size)
        offered = robot.contract if cameras else replace(robot.contract, cameras=())
        if offered.hash != self._profile.contract.hash:
            robot.close()
            differences = self._profile.contract.difference(offered)
            raise ValueError(f"simulator is not the profile's robot: {'; '.join(differences)}")
        return robot

    def _make_publishers(self) -> None:
        self._joint_states = self.create_publisher(JointState, self._profile.joint_states, qos.STATE)
        self._images = {
            camera.name: self.create_publisher(Image, camera.topic, qos.IMAGE) for camera in self._profile.cameras
        }
        topics = {pose.name: pose.topic for pose in self._profile.poses}
        self._poses = {name: self.create_publisher(PoseStamped, topic, qos.STATE) for name, topic in topics.items()}
        self._success = self.create_publisher(Bool, "success", qos.STATE)
        self._clock_topic = self.create_publisher(Clock, "/clock", qos.CLOCK)

    def _on_arm(self, message: Any) -> None:
        try:
            self._arm_target = first_positions(message, [joint.name for joint in self._profile.arm.joints])
        except ValueError as error:
            self.get_logger().warning(f"arm: {error}", throttle_duration_sec=1.0)
        self._command_came()

    def _on_gripper(self, message: Any) -> None:
        gripper = self._profile.gripper
        try:
            metres = float(first_positions(message, [gripper.command_joint])[0])
        except ValueError as error:
            self.get_logger().warning(f"gripper: {error}", throttle_duration_sec=1.0)
            return
        self._gripper_target = gripper_action(gripper, metres)
        self._command_came()

    def _command_came(self) -> None:
        if self._on_command and self.active and self._arm_target is not None and self._gripper_target is not None:
            self._commanded = True
            self._delay.commanded(self._rendered)
            self._unrendered.timer_period_ns = int(self._delay.s * 1e9)
            self._step()

    def _reset(self, request: Any, response: Any) -> Any:
        if not self.active:
            response.ok, response.message = False, "sim_arm_node is not active"
            return response
        self._arm_target = self._gripper_target = None
        response.instruction = self._robot.reset(request.seed)
        self._commanded = False
        self._publish()
        response.ok = True
        return response

    def _tick(self) -> None:
        if self.active and not (self._on_command and time.monotonic() < self._stepped_s + self._patience_s):
            self._step()

    @property
    def _patience_s(self) -> float:
        """For a command, before a step is taken without one."""
        return _PATIENCE_S if self._commanded else 1.0 / self._profile.rate_hz

    def _step(self) -> None:
        began = self._stepped_s = time.monotonic()
        self._robot.step(self._arm_target, self._gripper_target)
        self._arm_target = self._gripper_target = None
        self._publish()
        self._steps += 1
        self._overruns += time.monotonic() - began > 1.0 / self._profile.rate_hz

    def _publish(self) -> None:
        self._now_ns += self._period_ns
        clock = Clock()
        ns_to_stamp(self._now_ns, clock.clock)
        self._stamp = clock.clock
        self._clock_topic.publish(clock)
        if not self._on_command:
            self._publish_images()
        poses = {"tcp": self._robot.tcp_pose, "object": self._robot.object_pose, "goal": self._robot.goal_position}
        for name, publisher in self._poses.items():
            pose = PoseStamped()
            fill_pose(pose, poses[name])
            self._publish_stamped(publisher, pose, clock.clock, self._profile.base_frame)
        joints = JointState(
            name=list(self._robot.joint_names),
            position=self._robot.joint_positions.tolist(),
            velocity=self._robot.joint_velocities.tolist(),
        )
        self._publish_stamped(self._joint_states, joints, clock.clock)
        self._success.publish(Bool(data=bool(self._robot.success)))
        if self._on_command:
            self._unrendered.reset()
            self._rendered = False

    def _publish_images(self) -> None:
        self._unrendered.cancel()
        self._rendered = True
        frames = self._robot.images() if self._images else {}
        for name, publisher in self._images.items():
            image = Image()
            fill_image(image, frames[name])
            self._publish_stamped(publisher, image, self._stamp, f"{name}_optical_frame")

    def _publish_stamped(self, publisher: Any, message: Any, stamp: Any, frame: str = "") -> None:
        message.header.stamp, message.header.frame_id = stamp, frame
        publisher.publish(message)

    def _diagnose(self) -> None:
        values = {"steps": self._steps, "overruns": self._overruns, "active": self.active}
        self._diagnostics.publish("", values)


def main() -> None:
    """Run the node until a signal."""
    run(SimArmNode)
    # The interpreter's last collection would look at everything that a simulator imports: with torch, a second of CPU.
    gc.freeze()
