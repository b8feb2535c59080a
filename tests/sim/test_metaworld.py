"""MetaWorld behind the `Env` contract: its own dynamics and rewards to the bit, suites by seed, experts by sentence."""

from __future__ import annotations

import os
import sys
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from installed import needs
from patience import completed

from pirl_contract.conformance import EnvConformance
from pirl_sim.metaworld import scene as metaworld_scene
from pirl_sim.metaworld.env import MetaWorldEnv, held, make_metaworld_env
from pirl_sim.metaworld.experts import metaworld_expert
from pirl_sim.metaworld.sawyer import (
    ACTION_SCALE,
    FRAME_HZ,
    GOAL,
    HAND,
    HAND_VELOCITY,
    HELD,
    OBJECT,
    RATE_HZ,
    TCP_STEP_LIMIT,
    to_state,
)
from pirl_sim.metaworld.scene import IDLE_PER_TASK, Pool, Scene
from pirl_sim.metaworld.tasks import MT10, SENTENCES, Suite, suite

needs("metaworld", reason="MetaWorld is not installed (extra 'metaworld')")
pytestmark = pytest.mark.sim

SAMPLED = ("window-open-v3", "lever-pull-v3", "bin-picking-v3", "shelf-place-v3", "disassemble-v3", "handle-pull-v3")
"""beside MT10: scenes whose second reset depends on the first, rewards that remember the first step"""


class TestOneTask(EnvConformance):
    def make_env(self) -> MetaWorldEnv:
        return make_metaworld_env("metaworld/push-v3")


class TestSuite(EnvConformance):
    def make_env(self) -> MetaWorldEnv:
        return make_metaworld_env("metaworld/mt10")


def upstream(name: str, drawn: np.ndarray) -> Any:
    """MetaWorld's own environment whose reset uses these random numbers."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    env = ALL_V3_ENVIRONMENTS[name]()
    env._partially_observable, env._set_task_called = False, True
    del env.sawyer_observation_space
    env._last_rand_vec = drawn
    return env


@pytest.mark.parametrize("name", [*MT10, *SAMPLED])
def test_reset_and_steps_are_metaworlds_own_to_the_bit(name: str) -> None:
    scene, random = Scene(name), np.random.default_rng(0)
    scene.reset(5)
    for _ in range(3):
        scene.step(random.uniform(-1, 1, 4).astype(np.float32))  # leave the scene in disorder
    phi, _ = scene.reset(7)
    env = upstream(name, scene._env._last_rand_vec.copy())
    observation, _ = env.reset()
    np.testing.assert_array_equal(scene.state, to_state(observation))
    assert phi == env.evaluate_state(observation, np.zeros(4))[0] / 10
    env.reset()
    for _ in range(25):
        action = random.uniform(-1, 1, 4).astype(np.float32)
        phi, success = scene.step(action)
        observation, reward, _, _, info = env.step(action)
        np.testing.assert_array_equal(scene.state, to_state(observation))
        assert (phi, success) == (reward / 10, bool(info["success"]))
    assert np.abs(scene.state[HAND_VELOCITY]).max() > 0, "nothing moved: the comparison would prove nothing"
    scene.close()
    env.close()


def test_a_control_step_holds_its_action_for_four_of_metaworlds() -> None:
    env, scene = make_metaworld_env("metaworld/push-v3"), Scene("push-v3")
    env.reset(3)
    phi, _ = scene.reset(3)
    random = np.random.default_rng(0)
    for _ in range(5):
        action = random.uniform(-1, 1, 4).astype(np.float32)
        result = env.step(action * ACTION_SCALE)
        after = [scene.step(action)[0] for _ in range(HELD)][-1]
        np.testing.assert_array_equal(env.observe().state, scene.state)
        assert result.reward == pytest.approx(0.5 * (after - phi))
        phi = after
    scene.close()


def test_a_success_ends_the_control_step_it_happens_in() -> None:
    class Counting:
        steps = 0

        def step(self, action: np.ndarray) -> tuple[float, bool]:
            self.steps += 1
            return self.steps / 10, self.steps == 6

    scene: Any = Counting()
    assert held(scene, np.zeros(4, np.float32)) == (0.4, False)
    assert held(scene, np.zeros(4, np.float32)) == (0.6, True)
    assert scene.steps == 6


def test_a_skipped_first_reset_would_be_another_scene() -> None:
    """Negative control of the parity: MetaWorld's second reset does depend on its first."""
    scene = Scene("window-open-v3")
    scene.reset(7)
    state = scene.state
    scene._model.body_pos[:], scene._model.site_pos[:] = scene._places
    import mujoco

    mujoco.mj_resetData(scene._model, scene._data)
    other = to_state(np.concatenate([scene._env.reset_model()[:18]] * 2 + [state[GOAL]]))
    assert np.abs(other - state)[OBJECT].max() > 1e-3
    scene.close()


def test_an_episode_does_not_depend_on_what_came_before() -> None:
    """Alone in a new pool, or after other tasks, seeds and lanes in a shared one: the same to the bit."""
    seeds = (13, 3, 23, 14, 13)
    used, lane = Pool(), partial(MetaWorldEnv, suite("metaworld/mt10"), cameras=False, image_size=64)
    one, two = lane(used), lane(used)
    for seed in seeds:
        fresh = lane(Pool())
        np.testing.assert_array_equal(one.reset(seed).state, fresh.reset(seed).state)
        two.reset(seed + 10)
        for _ in range(4):
            action = np.float32([0.04, 0.02, -0.04, 1.0])
            assert one.step(action) == fresh.step(action)
            two.step(-action)
        np.testing.assert_array_equal(one.observe().state, fresh.observe().state)


def test_the_seed_picks_the_task_and_lanes_share_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Counter[str] = Counter()
    closed: Counter[str] = Counter()

    class Counted(Scene):
        def __init__(self, name: str) -> None:
            made[name] += 1
            super().__init__(name)

        def close(self) -> None:
            closed[self.name] += 1
            super().close()

    monkeypatch.setattr(metaworld_scene, "Scene", Counted)
    pool, tasks = Pool(), suite("metaworld/mt10").tasks[:3]
    few = Suite("metaworld/few", tasks, 20)
    lanes = [MetaWorldEnv(few, pool, cameras=False, image_size=64) for _ in range(4)]
    for turn in range(3):
        heard = [lane.reset(turn + index).instruction for index, lane in enumerate(lanes)]
        assert heard == [SENTENCES[tasks[(turn + index) % 3]] for index in range(4)]
    assert sum(made.values()) < 4 * 3
    for lane in lanes * 2:
        lane.close()
    assert made == {name: closed[name] + min(IDLE_PER_TASK, made[name]) for name in made}


@pytest.mark.parametrize("name", MT10)
def test_the_expert_succeeds_and_doing_nothing_does_not(name: str) -> None:
    env = make_metaworld_env(f"metaworld/{name}")

    def succeeds(seed: int, idle: bool = False) -> bool:
        observation = env.reset(seed)
        while True:
            action = np.zeros(4, np.float32) if idle else metaworld_expert(observation)
            result = env.step(action)
            if result.terminated or result.truncated:
                return result.success
            observation = env.observe()

    assert sum(succeeds(seed) for seed in range(1000, 1005)) >= 4
    assert not succeeds(1000, idle=True)
    env.close()


def test_rewards_of_a_success_telescope() -> None:
    env = make_metaworld_env("metaworld/reach-v3")
    observation, total = env.reset(0), 0.0
    start = env._phi
    while True:
        result = env.step(metaworld_expert(observation))
        total, observation = total + result.reward, env.observe()
        if result.terminated or result.truncated:
            break
    assert result.success
    assert 0.0 < start < env._phi
    assert total == pytest.approx(1.0 + 0.5 * (env._phi - start))


def test_units_are_the_contracts() -> None:
    """A commanded step moves the hand by that many metres, and the velocities are per second."""
    env = make_metaworld_env("metaworld/reach-v3")
    before = env.reset(0).state
    for _ in range(4):
        env.step(np.float32([TCP_STEP_LIMIT, 0, 0, -1]))
    state = env.observe().state
    assert 0.05 < state[HAND][0] - before[HAND][0] < 0.17, "4 steps of 4 cm, less the weld's lag"
    assert env._scene is not None
    env._scene.step(np.float32([1, 0, 0, -1]))
    after = env.observe().state
    np.testing.assert_allclose(after[HAND_VELOCITY], (after[HAND] - state[HAND]) * FRAME_HZ, atol=1e-4)
    assert env.contract.rate_hz == RATE_HZ == 20.0
    names = [field.name for field in env.contract.state]
    assert names[GOAL.start] == "goal.x"
    assert names[OBJECT.start] == "object.x"
    assert [np.float32(field.high) for field in env.contract.action] == list(ACTION_SCALE)


def test_all_fifty_tasks_have_a_sentence_of_their_own_and_an_expert() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3
    from metaworld.policies import ENV_POLICY_MAP

    assert list(SENTENCES) == list(ALL_V3_ENVIRONMENTS)
    assert set(SENTENCES) == set(ENV_POLICY_MAP)
    assert list(MT10) == list(MT10_V3)
    assert len(set(SENTENCES.values())) == 50
    assert suite("metaworld/mt50").tasks == tuple(SENTENCES)


def test_unknown_names_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("metaworld/juggle-v3", "push-v3", "metaworld/"):
        with pytest.raises(ValueError, match=f"unknown task '{wrong}'; known: metaworld/mt10"):
            make_metaworld_env(wrong)
    observation = make_metaworld_env("metaworld/push-v3").reset(0)
    with pytest.raises(ValueError, match="MetaWorld has no task with instruction 'juggle'"):
        metaworld_expert(type(observation)({}, observation.state, "juggle"))
    monkeypatch.setattr(metaworld_scene, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="need metaworld and mujoco: pip install metaworld"):
        make_metaworld_env("metaworld/push-v3")


CAMERA_SCRIPT = """
import sys
from pirl_sim.metaworld.env import make_metaworld_env
try:
    if "blind" in sys.argv:
        make_metaworld_env("metaworld/drawer-open-v3").reset(0)
    images = make_metaworld_env("metaworld/drawer-open-v3", cameras=True, image_size=48).reset(0).images
    print({name: (image.shape, image.std() > 10) for name, image in images.items()})
except RuntimeError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("chosen", "first", "expected"),
    [
        (None, "", "{'corner': ((48, 48, 3), np.True_)}"),
        (None, "blind", "{'corner': ((48, 48, 3), np.True_)}"),
        ("egl-of-nobody", "", "cameras need OpenGL, but MUJOCO_GL=egl-of-nobody"),
    ],
)
def test_cameras_render_or_say_what_is_missing(chosen: str | None, first: str, expected: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    environment |= {} if chosen is None else {"MUJOCO_GL": chosen}
    done = completed([sys.executable, "-c", CAMERA_SCRIPT, first], env=environment, limit_s=120)
    if chosen is None and done.stdout.startswith("cameras need OpenGL"):
        pytest.skip("no OpenGL here")
    assert done.stdout.startswith(expected), done.stdout + done.stderr
