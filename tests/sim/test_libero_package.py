"""What LIBERO lacks is said in words, nothing is asked on stdin; and LIBERO itself, where it is installed."""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pirl_server import simulation
from pirl_sim.libero import availability
from pirl_sim.libero import tasks as libero_tasks
from pirl_sim.libero.availability import PARTS, require_libero
from pirl_sim.libero.env import SETTLE_STEPS, make_libero_env
from pirl_sim.libero.panda import to_state
from pirl_sim.opengl import require_opengl

try:
    distribution("hf-libero")
    INSTALLED = True
except PackageNotFoundError:
    INSTALLED = False
real = pytest.mark.skipif(not INSTALLED, reason=f"hf-libero is not installed: {availability.INSTALL_HERE}")


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed LIBERO without assets; asking a question fails the test."""
    root = tmp_path / "libero" / "libero"
    root.mkdir(parents=True)
    monkeypatch.setattr(
        availability, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[root.parent])
    )
    monkeypatch.setattr(availability, "distribution", lambda name: None)
    monkeypatch.setattr(availability, "python_of", lambda name: None)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("LIBERO_CONFIG_PATH", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "set, so that it is put back afterwards")
        monkeypatch.delenv(name)
    return root


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    monkeypatch.setattr(availability, "distribution", lambda name: None)
    monkeypatch.setattr(availability, "python_of", lambda name: None)
    with pytest.raises(
        ValueError,
        match=r"need libero and robosuite and bddl and mujoco: pirl sim install libero .* hf-libero==0\.1\.4",
    ):
        simulation.check_task("libero/spatial")

    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(availability, "distribution", absent)
    monkeypatch.setattr(availability, "find_spec", lambda name: SimpleNamespace())
    with pytest.raises(ValueError, match="need hf-libero: pirl sim install"):
        simulation.check_task("libero/spatial")


def test_missing_assets_are_named_with_their_command(package: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"not downloaded: .*\.cache/libero/assets lacks articulated_objects.*`hf download"
    ):
        simulation.check_task("libero/spatial")
    for part in PARTS:
        (tmp_path / "home/.cache/libero/assets" / part).mkdir(parents=True)
    simulation.check_task("libero/spatial")
    (package / "assets" / "scenes").mkdir(parents=True)  # LIBERO then looks here and nowhere else
    with pytest.raises(ValueError, match="libero/assets lacks articulated_objects, stable_hope_objects"):
        simulation.check_task("libero/spatial")


def test_the_configuration_is_written_once_and_never_over_the_users(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in PARTS:
        (package / "assets" / part).mkdir(parents=True)
    require_libero()
    (ours,) = (tmp_path / "home/.cache/pirl").glob("libero-*/config.yaml")
    assert json.loads(ours.read_text())["init_states"] == str(package / "init_files")
    assert os.environ["LIBERO_CONFIG_PATH"] == str(ours.parent)
    assert not (tmp_path / "home/.libero").exists()
    theirs = tmp_path / "home/.libero/config.yaml"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    ours.unlink()
    monkeypatch.delenv("LIBERO_CONFIG_PATH")
    require_libero()
    assert theirs.read_text() == "mine"
    assert not ours.exists()
    monkeypatch.setenv("LIBERO_CONFIG_PATH", str(tmp_path / "chosen"))
    require_libero()
    assert (tmp_path / "chosen/config.yaml").exists()


def or_skip() -> None:
    try:
        require_libero()
    except ValueError as error:
        pytest.skip(str(error))


@real
def test_names_order_and_sentences_are_liberos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on stdin"))
    availability._configure()
    from libero.libero import benchmark, get_libero_path

    for part, names in libero_tasks.TASKS.items():
        theirs = benchmark.get_benchmark_dict()[f"libero_{part}"]()
        assert tuple(theirs.get_task_names()) == names
        ours = libero_tasks.suite(f"libero/{part}").instructions
        assert ours == tuple(theirs.get_task(index).language for index in range(10))
        assert Path(theirs.get_task_bddl_file_path(9)).exists()
        assert len(theirs.get_task_init_states(9)) == 50
    assert Path(get_libero_path("assets")).name == "assets"


@real
@pytest.mark.slow
def test_reset_and_steps_are_liberos_own_to_the_bit() -> None:
    """Played beside LIBERO's environment as openpi's example plays it, after another episode on the same scene."""
    or_skip()
    task, seed = "put_the_bowl_on_the_plate", 3
    env = make_libero_env(f"libero/goal/{task}")
    env.reset(1)
    ours = [env.reset(seed).state]
    from libero.libero import benchmark  # after the adapter has chosen how MuJoCo draws
    from libero.libero.envs.env_wrapper import ControlEnv as Theirs

    tasks = benchmark.get_benchmark_dict()["libero_goal"]()
    index = tasks.get_task_names().index(task)
    theirs = Theirs(
        bddl_file_name=tasks.get_task_bddl_file_path(index), has_offscreen_renderer=False, use_camera_obs=False
    )
    theirs.seed(seed)
    theirs.reset()
    theirs.set_init_state(tasks.get_task_init_states(index)[seed])
    for _ in range(SETTLE_STEPS):
        observation, *_ = theirs.step([0.0] * 6 + [-1.0])
    expected, random = [to_state(observation)], np.random.default_rng(0)
    for _ in range(15):
        action = random.uniform(-1, 1, 7).astype(np.float32)
        env.step(action)
        ours.append(env.observe().state)
        observation, *_ = theirs.step(action.tolist())
        expected.append(to_state(observation))
    np.testing.assert_array_equal(ours, expected)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3, "nothing moved: the comparison would prove nothing"
    assert not np.array_equal(env.reset(seed + 1).state, ours[0])
    env.close()
    theirs.close()


@real
@pytest.mark.slow
def test_cameras_see_the_scene() -> None:
    or_skip()
    try:
        require_opengl()
    except RuntimeError as error:
        pytest.skip(str(error))
    env = make_libero_env("libero/goal/turn_on_the_stove", cameras=True, image_size=64)
    images = env.reset(0).images
    env.close()
    assert {name: image.shape for name, image in images.items()} == dict.fromkeys(("base", "wrist"), (64, 64, 3))
    assert all(image.std() > 10 for image in images.values())
