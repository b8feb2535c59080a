"""One MuJoCo scene of a MetaWorld task, reset and stepped as MetaWorld does, and a pool that lanes share.

MetaWorld's bare task objects, without its gym wrappers: those pick a task from a fixed list of 50 and never another.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from pirl_contract.schema import Image, Vector
from pirl_sim.metaworld.sawyer import ACTION_DIM, to_state

Progress = tuple[float, bool]
"""(phi, success)"""
MAX_REWARD = 10.0
"""MetaWorld's dense reward lies in 0..10"""
IDLE_PER_TASK = 2
"""scenes without a user that the pool keeps of each task; one takes some 20 MB and 0.2 s to make"""
HINT = "pip install metaworld==3.1.1 mujoco==3.3.0 (the extra 'metaworld')"
_CAMERA = "corner2"


class Scene:
    """A MuJoCo instance of the task `name`. What it does is a function of the reset seed and the actions alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Vector
        """[27] as in `sawyer_contract`, of the last reset or step"""
        self._env: Any = _task_class(name)()
        self._env._partially_observable = False
        # Both are sampled again at each reset; without the first line the goal would stay a hidden zero.
        self._env.__dict__.pop("sawyer_observation_space", None)
        self._env.seeded_rand_vec, self._env._set_task_called = True, True
        self._model, self._data = self._env.model, self._env.data
        self._places = self._model.body_pos.copy(), self._model.site_pos.copy()
        self._attributes = _kept(self._env.__dict__)
        self._renderer: Any = None

    def reset(self, seed: int) -> Progress:
        """Start the episode of `seed`.

        MetaWorld resets twice, the second time with what the first has drawn and moved. So do we, on top of the scene
        as it was built, but without the physics of the first, which only the discarded half of its state would see.
        """
        import mujoco

        env = self._env
        self._restore(self._attributes)
        self._model.body_pos[:], self._model.site_pos[:] = self._places
        mujoco.mj_resetData(self._model, self._data)
        mujoco.mj_forward(self._model, self._data)
        env._np_random = np.random.default_rng(seed)
        env._freeze_rand_vec = False
        env._reset_hand = lambda: setattr(env, "init_tcp", env.tcp_center)
        env.reset_model()
        del env._reset_hand
        env._freeze_rand_vec = True
        mujoco.mj_resetData(self._model, self._data)
        observation = env.reset_model()
        env._prev_obs = observation[:18].copy()
        observation[18:36] = env._prev_obs
        self.state = to_state(observation)
        return self._at_reset(observation)

    def step(self, action: Vector) -> Progress:
        """Play an action [4] whose entries are in [-1, 1] for 12.5 ms."""
        observation, reward, _, _, info = self._env.step(action)
        self.state = to_state(observation)
        return float(reward) / MAX_REWARD, bool(info["success"])

    def image(self, size: int) -> Image:
        """Render the camera, RGB [size, size, 3]. Needs `require_opengl`."""
        import mujoco

        if self._renderer is None or self._renderer.height != size:
            self._renderer = mujoco.Renderer(self._model, size, size)
        self._renderer.update_scene(self._data, camera=_CAMERA)
        # MetaWorld mounted it upside down.
        return np.ascontiguousarray(self._renderer.render()[::-1, ::-1])

    def close(self) -> None:
        """Free the instance."""
        if self._renderer is not None:
            self._renderer.close()
        self._env.close()

    def _at_reset(self, observation: Any) -> Progress:
        # Some rewards note where things were when first asked: that must still be the first step.
        before = _kept(self._env.__dict__)
        reward, info = self._env.evaluate_state(observation, np.zeros(ACTION_DIM, np.float32))
        self._restore(before)
        return float(reward) / MAX_REWARD, bool(info["success"])

    def _restore(self, attributes: dict[str, Any]) -> None:
        self._env.__dict__.clear()
        self._env.__dict__.update(_kept(attributes))


class Pool:
    """Scenes that no environment uses at present. For one thread."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Scene]] = defaultdict(list)

    def take(self, name: str) -> Scene:
        """Return a scene of this task, made now if none is idle. The taker resets it."""
        return self._idle[name].pop() if self._idle[name] else Scene(name)

    def give(self, scene: Scene) -> None:
        """Take a scene back; it is freed when its task has enough idle ones."""
        if len(self._idle[scene.name]) < IDLE_PER_TASK:
            self._idle[scene.name].append(scene)
        else:
            scene.close()


@cache
def process_pool() -> Pool:
    """Return the pool of this process: many lanes of many tasks then need few more scenes than there are lanes."""
    return Pool()


def require_metaworld() -> None:
    """Raise ValueError, saying what to install, where MetaWorld is missing."""
    missing = [name for name in ("metaworld", "mujoco") if find_spec(name) is None]
    if missing:
        raise ValueError(f"tasks of MetaWorld need {' and '.join(missing)}: {HINT}")


def _task_class(name: str) -> Any:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return ALL_V3_ENVIRONMENTS[name]


def _kept(attributes: dict[str, Any]) -> dict[str, Any]:
    """Copy the arrays that are the task's own. Views into MuJoCo's memory stay views, as MetaWorld relies on."""
    return {
        name: value.copy() if isinstance(value, np.ndarray) and value.flags.owndata else value
        for name, value in attributes.items()
    }
