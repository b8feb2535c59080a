"""One ManiSkill scene with a Panda, and the SAPIEN handles that the project reads and drives directly."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.maniskill.light_arm import use_light_arm
from pirl_sim.maniskill.panda import CAMERA, CAMERA_EYE, CAMERA_FOV, CAMERA_TARGET, JOINTS, STATE_DIM
from pirl_sim.maniskill.tasks import Task
from pirl_sim.maniskill.vulkan import require_vulkan


@cache
def register_tasks() -> None:
    """Import ManiSkill's tasks, once, and put what is loaded by then out of the garbage collector's sight.

    ManiSkill collects garbage whenever it builds a scene, which takes longer than the scene: most of it went through
    the modules, which live as long as the process.
    """
    import mani_skill.envs  # noqa: F401

    gc.collect()
    gc.freeze()


class World:
    """A scene of `task`. `gym` is ManiSkill's own environment (pd_ee_delta_pos), everything else is SAPIEN's."""

    def __init__(self, task: Task, *, cameras: bool, image_size: int, control_mode: str = "pd_ee_delta_pos") -> None:
        import gymnasium

        register_tasks()
        require_vulkan(cameras)
        if cameras:
            use_light_arm()
        self.task = task
        self.gym: Any = gymnasium.make(
            task.id,
            num_envs=1,
            robot_uids="panda",  # StackCube's own choice has a wrist camera of 425 thousand triangles
            obs_mode="none",
            reward_mode="normalized_dense",
            control_mode=control_mode,
            # A renderer is built whenever the backend is not "none", and fails where Vulkan is missing.
            render_backend="cpu" if cameras else "none",
            sensor_configs=_sensors(image_size) if cameras else {},
        )
        self._bind(self.gym.unwrapped)

    def _bind(self, base: Any) -> None:
        self.base = base
        self.physics = base.scene.px
        self.substeps = int(base._sim_steps_per_control)
        self.robot = base.agent.robot._objs[0]
        self.joints = list(self.robot.active_joints)
        names = [joint.name for joint in self.joints]
        assert all(map(str.endswith, names, JOINTS)), f"the state has a different order than the joints: {names}"
        self.root = self.robot.root
        self.tcp = base.agent.tcp._objs[0].entity
        self.fingers = tuple(link._objs[0].entity for link in (base.agent.finger1_link, base.agent.finger2_link))
        self.object = base.scene.actors[self.task.object_name]._objs[0]
        actors = [base.scene.actors[name] for name in (self.task.object_name, self.task.goal_name)]
        self.body = actors[0]._bodies[0]
        self.bodies = [actor._bodies[0] for actor in actors if actor.px_body_type == "dynamic"]
        self.goal = base.scene.actors[self.task.goal_name]._objs[0]
        self._goal_offset = np.array(self.task.goal_offset, np.float32)

    def state(self) -> Vector:
        """Return the current state [35], a new array each time."""
        state = np.empty(STATE_DIM, np.float32)
        tcp, thing = self.tcp.pose, self.object.pose
        goal = self.goal.pose.p + self._goal_offset
        np.concatenate((self.robot.qpos, self.robot.qvel, tcp.p, tcp.q, thing.p, thing.q, goal), out=state)
        return state

    def poses(self) -> Vector:
        """[9 + 7 actors] all that moves and can be seen: joint positions, then position and wxyz of each actor."""
        actors = [actor._objs[0].pose for actor in self.base.scene.actors.values()]
        return np.concatenate([self.robot.qpos, *(part for pose in actors for part in (pose.p, pose.q))])

    def images(self) -> dict[str, Image]:
        """Render and return the cameras by name, RGB [height, width, 3]."""
        scene, sensor = self.base.scene, self.base._sensors["base_camera"]
        for hidden in self.base._hidden_objects:
            hidden.hide_visual()
        scene.update_render(update_sensors=True, update_human_render_cameras=False)
        camera = sensor.camera._render_cameras[0]
        camera.take_picture()
        return {CAMERA: np.ascontiguousarray(camera.get_picture("Color")[..., :3])}

    def close(self) -> None:
        """Free the scene."""
        self.gym.close()


def _sensors(image_size: int) -> dict[str, Any]:
    """One view for all tasks; ManiSkill's own differ from task to task and spend two of 64 pixels on a cube."""
    from mani_skill.utils.sapien_utils import look_at

    view = {"pose": look_at(CAMERA_EYE, CAMERA_TARGET), "fov": CAMERA_FOV}
    return {"width": image_size, "height": image_size, "shader_pack": "minimal", "base_camera": view}
