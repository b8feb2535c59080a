"""SIMPLER's Bridge tasks as an `Env`: ManiSkill's own environments, with SIMPLER's numbered initial states."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.benchmark_env import SparseEnv, SparseTask
from pirl_sim.maniskill.vulkan import require_vulkan
from pirl_sim.maniskill.world import register_tasks
from pirl_sim.simpler.availability import require_simpler
from pirl_sim.simpler.tasks import suite
from pirl_sim.simpler.widowx import CAMERA, to_maniskill, to_state, widowx_contract

_THEIR_CAMERA = "3rd_view_camera"


class BridgeScene:
    """One Bridge task, loaded. Renders when it is looked at: ManiSkill's own step renders each time."""

    def __init__(self, task: SparseTask, *, cameras: bool) -> None:
        self._cameras = cameras
        self._env: Any = task_class(task.name)(
            num_envs=1,
            obs_mode="rgb+segmentation",  # the only one; the segments cut the image out of its real background
            reward_mode="none",
            sim_backend="physx_cpu",
            render_backend="cpu",
            sensor_configs={"shader_pack": "minimal"},
        )

    def reset(self, episode: int, seed: int) -> None:
        """Load the initial state of this number; there are 24 for each task of the table, 64 for the sink."""
        import torch

        self._env.reset(seed=seed, options={"episode_id": torch.tensor([episode])})

    def step(self, action: Vector) -> bool:
        """Play an action [7] (m, rad, 1) for 200 ms."""
        self._env._step_action(to_maniskill(action))
        self._env._elapsed_steps += 1
        return bool(self._env.get_info()["success"].item())

    def state(self) -> Vector:
        """Return the state [8]."""
        agent = self._env.agent
        pose = agent.controller.controllers["arm"].ee_pose_at_base.raw_pose
        return to_state(pose[0].cpu().numpy(), agent.robot.get_qpos()[0].cpu().numpy())

    def images(self) -> dict[str, Image]:
        """Render the camera in front of the photographed background. It is uint8 RGB [height, width, 3]."""
        if not self._cameras:
            return {}
        picture = self._env._get_obs_sensor_data()[_THEIR_CAMERA]["rgb"]
        return {CAMERA: np.ascontiguousarray(picture[0].cpu().numpy())}

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()


def make_simpler_env(task_id: str, *, cameras: bool = False) -> SparseEnv:
    """Return the environment of "simpler/bridge" or one of its tasks.

    Raises ValueError for an unknown id and where ManiSkill or its assets are missing, RuntimeError, saying what to
    install, when there is no Vulkan driver that renders: ManiSkill draws these scenes at reset even without cameras.
    """
    chosen = suite(task_id)
    require_simpler()
    require_vulkan(cameras=True)
    return SparseEnv(chosen, widowx_contract(cameras), partial(BridgeScene, cameras=cameras))


def task_class(name: str) -> Any:
    """Return ManiSkill's class, with a background and a list of kept objects of its own.

    In ManiSkill 3.0.1 all Bridge environments of a process share both, so that a sink puts its photograph behind the
    tables that are already there. Calling the class, and not gymnasium's `make`, also leaves out the question on stdin.
    """
    from mani_skill.utils.registration import REGISTERED_ENVS

    register_tasks()
    theirs = REGISTERED_ENVS[name].cls
    return type(theirs.__name__, (theirs,), {"_rgb_overlay_images": {}, "_objects_to_remove_from_greenscreen": []})
