"""MetaWorld's Sawyer as an `Env`: one task, or a suite whose reset seed picks the task."""

from __future__ import annotations

from pirl_contract.protocols import StepResult
from pirl_contract.schema import Observation, Vector
from pirl_sim.action import normalised
from pirl_sim.maniskill.env import SHAPING, SUCCESS_REWARD
from pirl_sim.metaworld.sawyer import ACTION_SCALE, CAMERA, HELD, ROBOT, sawyer_contract
from pirl_sim.metaworld.scene import Pool, Progress, Scene, process_pool, require_metaworld
from pirl_sim.metaworld.tasks import SENTENCES, Suite, suite
from pirl_sim.opengl import require_opengl


class MetaWorldEnv:
    """`pirl_contract.protocols.Env` over the scenes of a pool.

    Reward per control step: 1 at success + 0.5 (phi after - phi before), phi = MetaWorld's dense reward / 10. The
    episode ends at the first success (terminated) or after `Suite.max_steps` control steps (truncated). Actions outside
    the contract's limits are clipped.
    """

    def __init__(self, suite: Suite, pool: Pool, *, cameras: bool, image_size: int) -> None:
        self.contract = sawyer_contract(cameras, image_size)
        self.suite = suite
        self.instruction = suite.instructions[0]
        self._pool, self._image_size = pool, image_size
        self._scene: Scene | None = None
        self._phi, self._steps = 0.0, 0
        self._running, self._closed = False, False

    def reset(self, seed: int) -> Observation:
        """Start the episode of `seed`: it picks the task, then everything that the task draws.

        Raises RuntimeError after close.
        """
        if self._closed:
            raise RuntimeError("reset after close: create a new environment")
        name = self.suite.task_of(seed)
        self._leave()
        self._scene = self._pool.take(name)
        self._phi, _ = self._scene.reset(seed)
        self._steps, self._running = 0, True
        self.instruction = SENTENCES[name]
        return self.observe()

    def step(self, action: Vector) -> StepResult:
        """Play one action [4] (m, m, m, 1) for 50 ms, less where it succeeds before.

        Raises RuntimeError without a running episode.
        """
        if self._scene is None or not self._running:
            raise RuntimeError("step without a running episode: call reset first")
        phi, success = held(self._scene, normalised(action, ACTION_SCALE))
        self._steps += 1
        reward = SUCCESS_REWARD * success + SHAPING * (phi - self._phi)
        self._phi = phi
        truncated = not success and self._steps >= self.suite.max_steps
        self._running = not (success or truncated)
        return StepResult(reward=reward, terminated=success, truncated=truncated, success=success)

    def observe(self) -> Observation:
        """Return the state, and render the camera if there is one.

        Raises RuntimeError before the first reset and after close.
        """
        if self._scene is None:
            raise RuntimeError("observe without an episode: call reset first")
        images = {CAMERA: self._scene.image(self._image_size)} if self.contract.cameras else {}
        return Observation(images, self._scene.state, self.instruction, robot_id=ROBOT)

    def close(self) -> None:
        """Leave the scene to others."""
        self._leave()
        self._closed, self._running = True, False

    def _leave(self) -> None:
        if self._scene is not None:
            self._pool.give(self._scene)
        self._scene = None


def held(scene: Scene, action: Vector) -> Progress:
    """Play an action [4] in [-1, 1] for a control step, or until it succeeds; return where that led."""
    for _ in range(HELD):
        phi, success = scene.step(action)
        if success:
            break
    return phi, success


def make_metaworld_env(suite_id: str, *, cameras: bool = False, image_size: int = 64) -> MetaWorldEnv:
    """Return the environment of "metaworld/<task>", "metaworld/mt10" or "metaworld/mt50".

    Raises ValueError for an unknown id and where MetaWorld is not installed, RuntimeError, saying what to install and
    set, when cameras are asked for and OpenGL is missing.
    """
    require_metaworld()
    if cameras:
        require_opengl()
    return MetaWorldEnv(suite(suite_id), process_pool(), cameras=cameras, image_size=image_size)
