"""SIMPLER's Bridge tasks behind the `Env` contract: our numbers against ManiSkill's, the mapping against a stand-in."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from installed import needs

from pirl_contract.conformance import EnvConformance
from pirl_server import simulation
from pirl_sim.benchmark_env import SparseEnv
from pirl_sim.simpler import availability, tasks
from pirl_sim.simpler import env as simpler_env
from pirl_sim.simpler.availability import ASSETS, assets_folder, require_simpler
from pirl_sim.simpler.env import make_simpler_env, task_class
from pirl_sim.simpler.tasks import BRIDGE
from pirl_sim.simpler.widowx import (
    FINGER_LIMITS,
    FINGERS,
    IMAGE_HEIGHT,
    IMAGE_WIDTH,
    POSITION_STEP,
    RATE_HZ,
    ROTATION_STEP,
    to_maniskill,
    to_state,
    widowx_contract,
)

needs("mani_skill", reason="ManiSkill is not installed (extra 'sim')")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.sim

DOWN = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)
"""wxyz, of a hand that points straight down"""


class BridgeEnv:
    """What the adapter uses of ManiSkill's class: a hand that goes where it is told, success beyond x = 0.25."""

    made: list[BridgeEnv]

    def __init__(self, **settings: Any) -> None:
        self.settings, self.actions, self.looks, self.closed = settings, [], 0, False
        self.made.append(self)
        robot = SimpleNamespace(get_qpos=lambda: torch.full((1, 8), 0.026))
        arm = SimpleNamespace(ee_pose_at_base=SimpleNamespace(raw_pose=None))
        self.arm = arm.ee_pose_at_base
        self.agent = SimpleNamespace(robot=robot, controller=SimpleNamespace(controllers={"arm": arm}))

    def reset(self, seed: int, options: dict[str, Any]) -> None:
        self.episode, self._elapsed_steps = int(options["episode_id"].item()), 0
        self.arm.raw_pose = torch.tensor([[0.0, 0.01 * self.episode, 0.1, *DOWN]])

    def _step_action(self, action: np.ndarray) -> None:
        self.actions.append(action)
        self.arm.raw_pose = self.arm.raw_pose + torch.tensor([[*action[:3].tolist(), 0, 0, 0, 0]])

    def get_info(self) -> dict[str, Any]:
        return {"success": self.arm.raw_pose[:, 0] > 0.25}

    def _get_obs_sensor_data(self) -> dict[str, Any]:
        self.looks += 1
        return {"3rd_view_camera": {"rgb": torch.full((1, IMAGE_HEIGHT, IMAGE_WIDTH, 3), 9, dtype=torch.uint8)}}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[BridgeEnv]:
    class Own(BridgeEnv):
        made: list[BridgeEnv] = []  # noqa: RUF012

    monkeypatch.setattr(simpler_env, "task_class", lambda name: Own)
    monkeypatch.setattr(simpler_env, "require_simpler", lambda: None)
    monkeypatch.setattr(simpler_env, "require_vulkan", lambda cameras: None)
    return Own


@pytest.mark.usefixtures("stand_in")
class TestStandIn(EnvConformance):
    def make_env(self) -> SparseEnv:
        return make_simpler_env("simpler/PutCarrotOnPlateInScene-v1")


@pytest.mark.usefixtures("stand_in")
class TestStandInWithCamera(EnvConformance):
    def make_env(self) -> SparseEnv:
        return make_simpler_env("simpler/bridge", cameras=True)


def test_the_seed_picks_the_task_then_the_numbered_initial_state(stand_in: type[BridgeEnv]) -> None:
    env = make_simpler_env("simpler/bridge")
    heard = [env.reset(seed).instruction for seed in (4, 5, 6, 7, 8)]
    assert heard == [task.instruction for task in (*BRIDGE, BRIDGE[0])]
    assert [theirs.episode for theirs in stand_in.made] == [1, 1, 1, 1, 2]
    assert [theirs.closed for theirs in stand_in.made] == [True] * 4 + [False]
    one = make_simpler_env("simpler/PutEggplantInBasketScene-v1")
    one.reset(23)
    assert stand_in.made[-1].episode == 23
    assert simulation.part("simpler/bridge", 7) == "simpler/PutEggplantInBasketScene-v1"


def test_actions_are_metres_and_radians_and_the_gripper_is_all_or_nothing(stand_in: type[BridgeEnv]) -> None:
    env = make_simpler_env("simpler/bridge")
    before = env.reset(0).state
    env.step(np.float32([0.02, -0.01, 9.0, 0.1, -9.0, 0, 0.6]))
    played = [0.02, -0.01, POSITION_STEP, 0.1, -ROTATION_STEP, 0, 1]
    np.testing.assert_allclose(stand_in.made[0].actions[0], played, rtol=1e-6)
    np.testing.assert_allclose(env.observe().state[:3] - before[:3], [0.02, -0.01, 0.1], rtol=1e-4)
    assert to_maniskill(np.float32([0] * 6 + [0.5]))[6] == -1
    action = np.float32([0] * 6 + [0.9])
    to_maniskill(action)
    assert action[6] == np.float32(0.9), "the policy's own action is left alone"


def test_time_limits_are_each_tasks_own_and_success_is_the_only_reward(stand_in: type[BridgeEnv]) -> None:
    env, still = make_simpler_env("simpler/bridge"), np.zeros(7, np.float32)
    for seed, limit in ((0, 60), (3, 120)):
        env.reset(seed)
        results = [env.step(still) for _ in range(limit)]
        assert [result.truncated for result in results].index(True) == limit - 1
    assert env.suite.max_steps == 120
    env.reset(1)
    rewards = [env.step(np.float32([0.1, 0, 0, 0, 0, 0, 0])) for _ in range(3)]
    assert [(result.reward, result.terminated) for result in rewards] == [(0, False), (0, False), (1, True)]


def test_it_renders_only_when_looked_at(stand_in: type[BridgeEnv]) -> None:
    env = make_simpler_env("simpler/bridge", cameras=True)
    widowx_contract().check(env.reset(0))
    for _ in range(5):
        env.step(np.zeros(7, np.float32))
    assert stand_in.made[0].looks == 1
    blind = make_simpler_env("simpler/bridge")
    assert blind.reset(0).images == {}
    assert stand_in.made[1].looks == 0


def test_the_state_is_bridges() -> None:
    """Angles against a hand that points down, checked with another library's rotations; gripper 0 closed to 1 open."""
    from scipy.spatial.transform import Rotation

    def pose(rotation: Rotation) -> np.ndarray:
        x, y, z, w = rotation.as_quat()
        return np.float32([0.3, -0.1, 0.2, w, x, y, z])

    down = Rotation.from_euler("y", 90, degrees=True)
    joints = np.zeros(8, np.float32)
    joints[FINGERS] = FINGER_LIMITS[0]
    np.testing.assert_allclose(to_state(pose(down), joints), [0.3, -0.1, 0.2, 0, 0, 0, 0, 0], atol=1e-6)
    for angles in ((0.0, 0.0, 0.5), (0.2, -0.3, 0.7)):
        joints[FINGERS] = FINGER_LIMITS[1]
        state = to_state(pose(Rotation.from_euler("xyz", angles) * down), joints)
        np.testing.assert_allclose(state[3:], [*angles, 0, 1], atol=1e-6)
    joints[FINGERS] = np.mean(FINGER_LIMITS), FINGER_LIMITS[1] + 0.1
    assert to_state(pose(down), joints)[7] == 1, "beyond its limit is open, not more"
    assert state.shape == (widowx_contract().state_dim,)


def test_names_sentences_limits_and_sizes_are_maniskills() -> None:
    import mani_skill.envs  # noqa: F401
    from mani_skill.utils.registration import REGISTERED_ENVS

    for task in BRIDGE:
        spec = REGISTERED_ENVS[task.name]
        assert spec.max_episode_steps == task.max_steps
        assert spec.cls.get_language_instruction(SimpleNamespace(num_envs=1)) == [task.instruction]
        assert spec.cls._default_sim_config.fget(None).control_freq == RATE_HZ
    from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval import base_env

    for robot in (base_env.WidowX250SBridgeDatasetFlatTable, base_env.WidowX250SBridgeDatasetSink):
        (camera,) = robot._sensor_configs.fget(None)
        assert (camera.uid, camera.height, camera.width) == ("3rd_view_camera", IMAGE_HEIGHT, IMAGE_WIDTH)
        (controllers,) = robot._controller_configs.fget(robot).values()
        assert not controllers["arm"].normalize_action
        assert controllers["arm"].pos_upper > POSITION_STEP
        assert controllers["arm"].rot_upper > ROTATION_STEP
        assert (controllers["gripper"].lower, controllers["gripper"].upper) == pytest.approx((0.014, 0.038))


def test_environments_of_one_process_do_not_share_their_background() -> None:
    import mani_skill.envs  # noqa: F401
    from mani_skill.utils.registration import REGISTERED_ENVS

    spoon, eggplant = BRIDGE[0].name, BRIDGE[3].name
    for attribute in ("_rgb_overlay_images", "_objects_to_remove_from_greenscreen"):
        ours = [getattr(task_class(name), attribute) for name in (spoon, spoon, eggplant)]
        assert len({id(own) for own in ours}) == 3
        theirs = [getattr(REGISTERED_ENVS[name].cls, attribute) for name in (spoon, eggplant)]
        assert theirs[0] is theirs[1], "ManiSkill no longer shares it: the subclass can go"


def test_missing_assets_are_named_with_their_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mani_skill.utils.assets.data import DATA_SOURCES

    assert {name: DATA_SOURCES[name].target_path for name in ASSETS} == ASSETS
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    command = "python -m mani_skill.utils.download_asset"
    with pytest.raises(ValueError, match=rf"`{command} bridge_v2_real2sim -y` and `{command} widowx250s -y`"):
        simulation.check_task("simpler/bridge")
    (tmp_path / "data" / ASSETS["bridge_v2_real2sim"]).mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"run `{command} widowx250s -y` \("):
        make_simpler_env("simpler/PutCarrotOnPlateInScene-v1")
    (tmp_path / "data" / ASSETS["widowx250s"]).mkdir(parents=True)
    simulation.check_task("simpler/bridge")
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"need mani_skill: pip install mani-skill==3\.0\.1"):
        simulation.check_task("simpler/bridge")


def test_the_folder_is_the_one_maniskill_looks_in() -> None:
    from mani_skill import ASSET_DIR

    assert assets_folder() == ASSET_DIR


def test_unknown_ids_are_refused_in_words() -> None:
    for wrong in ("simpler/juggle", "simpler/", "bridge"):
        with pytest.raises(ValueError, match=f"unknown task '{wrong}'; known: simpler/bridge, simpler/PutSpoon"):
            tasks.suite(wrong)
    with pytest.raises(ValueError, match="no scripted expert"):
        simulation.expert("simpler/bridge")


@pytest.mark.render
@pytest.mark.slow
def test_with_assets_the_scene_is_maniskills_own() -> None:
    """The same episode in ManiSkill's environment, stepped by its own `step`: poses, success and picture are equal."""
    try:
        require_simpler()
    except ValueError as error:
        pytest.skip(str(error))
    import gymnasium

    name, random = BRIDGE[1].name, np.random.default_rng(0)
    env = make_simpler_env(f"simpler/{name}", cameras=True)
    first = env.reset(5)
    theirs: Any = gymnasium.make(
        name, obs_mode="rgb+segmentation", sim_backend="physx_cpu", sensor_configs={"shader_pack": "minimal"}
    )
    theirs.reset(seed=5, options={"episode_id": torch.tensor([5])})
    arm = theirs.unwrapped.agent.controller.controllers["arm"]
    for _ in range(5):
        action = random.uniform(-0.03, 0.03, 7).astype(np.float32)
        result = env.step(action)
        observation, _, _, _, info = theirs.step(to_maniskill(action))
        state = to_state(arm.ee_pose_at_base.raw_pose[0].numpy(), theirs.unwrapped.agent.robot.get_qpos()[0].numpy())
        np.testing.assert_array_equal(env.observe().state, state)
        assert result.success == bool(info["success"].item())
    assert np.abs(state - first.state).max() > 0.01, "nothing moved: the comparison would prove nothing"
    picture = observation["sensor_data"]["3rd_view_camera"]["rgb"][0].numpy()
    np.testing.assert_array_equal(env.observe().images["base"], picture)
    env.close()
    theirs.close()
