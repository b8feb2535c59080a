"""LIBERO behind the `Env` contract, against a stand-in of the classes that it uses."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pirl_contract.conformance import EnvConformance
from pirl_server import simulation
from pirl_sim.benchmark_env import SparseEnv
from pirl_sim.libero import env as libero_env
from pirl_sim.libero import tasks
from pirl_sim.libero.env import make_libero_env
from pirl_sim.libero.panda import axis_angle, libero_contract, to_images, to_state

STATES = 50


class ControlEnv:
    """What the adapter uses of LIBERO's class of this name: an arm that goes where it is told, solved at x > 0.1."""

    made: list[ControlEnv]
    collisions = 0

    def __init__(self, **settings: Any) -> None:
        self.settings, self.actions, self.closed = settings, [], False
        self.env = SimpleNamespace(
            reset=self._reset,
            parsed_problem={"goal_state": [["on", "bowl_1", "plate_1"]]},
            obj_body_id={"bowl_1": 0},
            sim=SimpleNamespace(data=self),
        )
        self.body_xpos, self.body_xquat = np.array([[0.1, 0.2, 0.9]]), np.array([[-0.6, 0.8, 0.0, 0.0]])
        self.made.append(self)
        self._reset()

    def seed(self, seed: int) -> None:
        np.random.seed(seed)

    def _reset(self) -> None:
        if type(self).collisions:
            type(self).collisions -= 1
            raise sys.modules["robosuite.utils.errors"].RandomizationError
        self.placed, self.actions = np.random.uniform(), []

    def set_init_state(self, state: np.ndarray) -> dict[str, np.ndarray]:
        self.position = np.array([0.0, self.placed, state[0]])
        return self._observation()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        np.random.uniform()  # what is drawn later must not matter to what is drawn at reset
        self.actions.append(np.array(action))
        self.position = self.position + 0.05 * np.asarray(action[:3])
        solved = bool(self.position[0] > 0.1)
        return self._observation(), float(solved), solved, {}

    def get_site_xpos(self, name: str) -> np.ndarray:
        assert name == "plate_1"
        return np.array([0.4, 0.5, 0.6])

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, np.ndarray]:
        observation = {
            "robot0_eef_pos": self.position,
            "robot0_eef_quat": np.array([1.0, 0.0, 0.0, 0.0]),
            "robot0_gripper_qpos": np.array([0.04, -0.04]),
        }
        if not self.settings["use_camera_obs"]:
            return observation
        size = self.settings["camera_heights"]
        picture = np.arange(size * size * 3, dtype=np.uint32).astype(np.uint8).reshape(size, size, 3)
        return observation | {"agentview_image": picture, "robot0_eye_in_hand_image": picture + np.uint8(7)}


class Benchmark:
    """Task `index` has the initial states index, index + 0.001, ..."""

    def get_task_bddl_file_path(self, index: int) -> str:
        return f"/somewhere/{index}.bddl"

    def get_task_init_states(self, index: int) -> np.ndarray:
        return index + 0.001 * np.arange(STATES)[:, None]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[ControlEnv]:
    """Put stand-ins where the adapter imports LIBERO from."""

    class Own(ControlEnv):
        made: list[ControlEnv] = []  # noqa: RUF012
        collisions = 0

    modules = {
        "libero.libero.benchmark": {"get_benchmark_dict": lambda: dict.fromkeys(SUITES.values(), Benchmark)},
        "libero.libero.envs.env_wrapper": {"ControlEnv": Own},
        "robosuite.utils.errors": {"RandomizationError": type("RandomizationError", (Exception,), {})},
    }
    for path, names in modules.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            module = sys.modules.get(".".join(parts[:end]))
            if module is None or not hasattr(module, "stands_in"):
                module = ModuleType(".".join(parts[:end]))
                module.__dict__.update(stands_in=True, __path__=[])
                monkeypatch.setitem(sys.modules, module.__name__, module)
                if end > 1:
                    setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
        sys.modules[path].__dict__.update(names)
    monkeypatch.setattr(libero_env, "require_libero", lambda: None)
    monkeypatch.setattr(libero_env, "require_opengl", lambda: None)
    monkeypatch.setattr(libero_env, "python_of", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    return Own


SUITES = {"spatial": "libero_spatial", "object": "libero_object", "goal": "libero_goal", "10": "libero_10"}


@pytest.mark.usefixtures("stand_in")
class TestStandIn(EnvConformance):
    def make_env(self) -> SparseEnv:
        return make_libero_env("libero/goal")


@pytest.mark.usefixtures("stand_in")
class TestStandInWithCameras(EnvConformance):
    def make_env(self) -> SparseEnv:
        return make_libero_env("libero/10", cameras=True, image_size=8)


def test_an_episode_is_openpis(stand_in: type[ControlEnv]) -> None:
    """Seed, reset, stored state, ten steps that only open the gripper, then the policy's actions as they are."""
    env = make_libero_env("libero/goal")
    state = env.reset(7 + 10 * 3).state
    (theirs,) = stand_in.made
    assert theirs.settings["bddl_file_name"] == "/somewhere/7.bddl"
    assert state[2] == np.float32(7.003), "task 7, initial state 3"
    assert [action.tolist() for action in theirs.actions] == [[0.0] * 6 + [-1.0]] * 10
    env.step(np.float32([0.5, -2.0, 0, 0.25, 0, 0, 1]))
    assert theirs.actions[-1].tolist() == [0.5, -1.0, 0, 0.25, 0, 0, 1], "clipped, not scaled"


def test_five_hundred_seeds_are_every_initial_state_of_a_suite_once(stand_in: type[ControlEnv]) -> None:
    suite = tasks.suite("libero/spatial")
    start = 123_456
    met = {(suite.task_of(seed).name, suite.episode_of(seed) % STATES) for seed in range(start, start + 500)}
    assert len(met) == 500
    env = make_libero_env("libero/spatial/" + tasks.TASKS["spatial"][4])
    assert [env.reset(seed).state[2] for seed in (0, 1, 50)] == [np.float32(4), np.float32(4.001), np.float32(4)]


def test_the_seed_places_what_the_stored_state_does_not_hold(stand_in: type[ControlEnv]) -> None:
    env = make_libero_env("libero/goal/turn_on_the_stove")
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    one, other, again = (env.reset(seed).state for seed in (1, 51, 1))
    assert one[2] == other[2]
    assert one[1] != other[1]
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(before, np.random.get_state()[1], err_msg="the process's own draws must not change")
    np.random.seed(6)
    np.testing.assert_array_equal(one, make_libero_env("libero/goal/turn_on_the_stove").reset(1).state)


def test_another_task_is_another_scene_and_the_old_one_is_freed(stand_in: type[ControlEnv]) -> None:
    env = make_libero_env("libero/object")
    heard = [env.reset(seed).instruction for seed in (0, 10, 1)]
    assert heard == ["pick up the alphabet soup and place it in the basket"] * 2 + [
        "pick up the cream cheese and place it in the basket"
    ]
    assert [theirs.closed for theirs in stand_in.made] == [True, False]
    env.close()
    assert all(theirs.closed for theirs in stand_in.made)


def test_success_ends_the_episode_and_is_the_only_reward(stand_in: type[ControlEnv]) -> None:
    env, forward = make_libero_env("libero/goal"), np.float32([1, 0, 0, 0, 0, 0, 0])
    env.reset(0)
    results = [env.step(forward) for _ in range(3)]
    assert [result.reward for result in results] == [0.0, 0.0, 1.0]
    assert [result.terminated for result in results] == [False, False, True]
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(forward)


@pytest.mark.parametrize(("part", "steps"), [("spatial", 220), ("object", 280), ("goal", 300), ("10", 520)])
def test_suites_are_ten_sentences_and_openpis_time_limits(stand_in: type[ControlEnv], part: str, steps: int) -> None:
    suite = tasks.suite(f"libero/{part}")
    assert len(set(suite.instructions)) == 10
    assert not any(character.isupper() or character == "_" for character in "".join(suite.instructions))
    env = make_libero_env(f"libero/{part}")
    env.reset(0)
    results = [env.step(np.zeros(7, np.float32)) for _ in range(steps)]
    assert [result.truncated for result in results].index(True) == steps - 1


def test_collisions_at_placement_are_tried_again_but_not_for_ever(stand_in: type[ControlEnv]) -> None:
    env = make_libero_env("libero/goal")
    env.reset(0)
    stand_in.collisions = 3
    env.reset(10)
    assert stand_in.collisions == 0
    stand_in.collisions = 1000
    with pytest.raises(RuntimeError, match="could not place the objects of 0 in 20 attempts"):
        env.reset(20)


def test_pictures_are_turned_by_180_degrees(stand_in: type[ControlEnv]) -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 1] = 255
    images = to_images({"agentview_image": picture, "robot0_eye_in_hand_image": picture[::-1]})
    assert np.argwhere(images["base"][..., 0]).tolist() == [[3, 4]], "a flip of rows alone would leave column 1"
    assert np.argwhere(images["wrist"][..., 0]).tolist() == [[0, 4]]
    observation = make_libero_env("libero/goal", cameras=True).reset(0)
    libero_contract().check(observation)
    assert make_libero_env("libero/goal").reset(0).images == {}


def test_the_state_is_openpis() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(axis_angle(np.array([0, 0, half, half])), [0, 0, np.pi / 2])
    np.testing.assert_allclose(axis_angle(np.array([0, 0, -half, -half])), [0, 0, -3 * np.pi / 2], rtol=1e-6)
    np.testing.assert_array_equal(axis_angle(np.array([0, 0, 0, 1.0])), np.zeros(3))
    quaternion = np.array([0, 0, 0, 1.0 + 1e-9])
    assert np.isfinite(axis_angle(quaternion)).all()
    assert quaternion[3] > 1, "the caller's array is left alone"
    state = to_state(
        {
            "robot0_eef_pos": np.array([0.1, 0.2, 0.3]),
            "robot0_eef_quat": np.array([1.0, 0, 0, 0]),
            "robot0_gripper_qpos": np.array([0.02, -0.02]),
        }
    )
    np.testing.assert_allclose(state, np.float32([0.1, 0.2, 0.3, np.pi, 0, 0, 0.02, -0.02]))
    assert state.shape == (libero_contract().state_dim,)


def test_without_cameras_the_state_says_where_the_tasks_things_are(stand_in: type[ControlEnv]) -> None:
    """Thing, its rotation with w >= 0, place; twice where the task has one condition. A site has no rotation."""
    state = make_libero_env("libero/goal").reset(0).state
    once = [0.1, 0.2, 0.9, 0.6, -0.8, 0, 0, 0.4, 0.5, 0.6]
    np.testing.assert_allclose(state[8:], np.float32(once * 2))
    assert state.shape == (libero_contract(cameras=False).state_dim,) == (28,)
    assert make_libero_env("libero/goal", cameras=True).reset(0).state.shape == (8,)


def test_unknown_ids_are_refused_in_words() -> None:
    for wrong in ("libero/long", "libero/", "libero/goal/", "libero/goal/juggle", "goal"):
        with pytest.raises(ValueError, match=f"unknown task '{wrong}'; known: libero/spatial"):
            tasks.suite(wrong)
    with pytest.raises(ValueError, match="no scripted expert"):
        simulation.expert("libero/goal")
    assert simulation.part("libero/goal", 17) == "libero/goal/turn_on_the_stove"
    assert tasks.suite(simulation.part("libero/goal", 17)).instructions == ("turn on the stove",)
