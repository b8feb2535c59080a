"""LIBERO as an `Env`: LIBERO's own environment, initial states and success, played as openpi's example plays it.

LIBERO's observation of a control step is taken before the step ends, after the 24th of its 25 physics steps: robosuite
1.4.0 samples so. Demonstrations and published results have that lag, and so does this. It is also why images are
rendered at every step and not on demand.

Where `pirl sim install libero` has made an environment of LIBERO's own, each scene is a process there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.benchmark_env import Scene, SparseEnv, SparseTask
from pirl_sim.environments import python_of, variables
from pirl_sim.libero.availability import require_libero
from pirl_sim.libero.goal_objects import GoalObjects
from pirl_sim.libero.lean import LeanStepper
from pirl_sim.libero.panda import IMAGE_SIZE, libero_contract, to_images, to_state
from pirl_sim.libero.tasks import folder_and_index, suite
from pirl_sim.opengl import HINT, require_opengl
from pirl_sim.scene_process import SceneProcess

SETTLE_STEPS = 10
"""control steps in which objects fall into place before the episode; openpi's number"""
SETTLE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
PLACEMENTS = 20
"""attempts to place objects that don't touch; LIBERO tries for ever, and hides every other error meanwhile"""


class LiberoScene:
    """One task of LIBERO, loaded. What it does is a function of initial state, seed and actions alone.

    `lean`: by `LeanStepper`, for scenes without cameras.
    """

    def __init__(self, task: str, *, cameras: bool, image_size: int, lean: bool = False) -> None:
        folder, index = folder_and_index(task)
        self._cameras, self._lean = cameras, lean
        self._stepper: LeanStepper | None = None
        self._observation: Any = None
        self._bddl, self._initial_states = _stored(folder, index)
        with drawing_from(0):
            self._env = _control_env(
                bddl_file_name=str(self._bddl),
                has_offscreen_renderer=cameras,
                use_camera_obs=cameras,
                camera_heights=image_size,
                camera_widths=image_size,
                # Without it the episode of another one begins within what the last one left: see `_place`.
                hard_reset=not lean,
            )
        self._goals = GoalObjects(self._env.env)

    def reset(self, episode: int, seed: int) -> None:
        """Load LIBERO's stored state, one of 50. The seed places what no stored state holds: cabinets, stove, rack."""
        with drawing_from(seed):
            self._place()
            self._stepper = LeanStepper(self._env.env) if self._lean else None
            self._env.set_init_state(self._initial_states[episode % len(self._initial_states)])
            for _ in range(SETTLE_STEPS):
                self.step(np.array(SETTLE, np.float32))

    def step(self, action: Vector) -> bool:
        """Play an action [7] in [-1, 1] for 50 ms."""
        if self._stepper is not None:
            self._observation, solved = self._stepper.step(action.astype(np.float64))
            return solved
        self._observation, _, done, _ = self._env.step(action.astype(np.float64))
        return bool(done)

    def state(self) -> Vector:
        """Return the state: [8], without cameras [28]."""
        hand = to_state(self._observation)
        return hand if self._cameras else np.concatenate([hand, self._goals.state().astype(np.float32)])

    def images(self) -> dict[str, Image]:
        """Return both cameras. Each is uint8 RGB [height, width, 3]."""
        return to_images(self._observation) if self._cameras else {}

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()

    def _place(self) -> None:
        from robosuite.utils.errors import RandomizationError

        for _ in range(PLACEMENTS):
            try:
                self._env.env.reset()
                if self._lean:  # a hard reset makes a new gripper, open as far as the state says
                    self._env.env.robots[0].gripper.current_action = np.zeros(2)
                return
            except RandomizationError:
                continue
        raise RuntimeError(f"LIBERO could not place the objects of {self._bddl.stem} in {PLACEMENTS} attempts")


def make_libero_env(
    task_id: str, *, cameras: bool = False, image_size: int = IMAGE_SIZE, lean: bool = False
) -> SparseEnv:
    """Return the environment of "libero/spatial", "libero/object", "libero/goal", "libero/10" or one of their tasks.

    `lean`: faster steps, for learning; without cameras only. Raises ValueError for an unknown id and where LIBERO or
    its assets are missing, RuntimeError, saying what to install and set, when cameras are asked for and OpenGL is
    missing.
    """
    chosen = suite(task_id)
    require_libero()
    if cameras:
        require_opengl()
    settings = {"cameras": cameras, "image_size": image_size, "lean": lean and not cameras}
    return SparseEnv(chosen, libero_contract(cameras, image_size), partial(_scene, settings))


def _scene(settings: Mapping[str, Any], task: SparseTask) -> Scene:
    python = python_of("libero")
    if python is None:
        return LiberoScene(task.name, **settings)
    made_by = f"{LiberoScene.__module__}:{LiberoScene.__name__}"
    return SceneProcess(python, made_by, {"task": task.name, **settings}, variables())


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let numpy's process-wide generator, which LIBERO draws from, start at `seed`; leave it as it was."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


def _stored(folder: str, index: int) -> tuple[Path, Any]:
    """Return the file that describes the task and its initial states [50, size of MuJoCo's state]."""
    from libero.libero import benchmark

    with redirect_stdout(StringIO()):  # it prints the order of its tasks
        tasks = benchmark.get_benchmark_dict()[folder]()
    return Path(tasks.get_task_bddl_file_path(index)), tasks.get_task_init_states(index)


def _control_env(**settings: Any) -> Any:
    # robosuite chooses this too, but after MuJoCo, imported first, has settled for a window.
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        from libero.libero.envs.env_wrapper import ControlEnv
    except (AttributeError, ImportError, RuntimeError) as error:  # each OpenGL binding fails with another type
        raise RuntimeError(
            f"LIBERO can't be imported ({error}); it loads OpenGL even without cameras: {HINT}"
        ) from error
    return ControlEnv(**settings)
