"""The decimated arm is the stock arm to physics, looks like it, and renders with a Vulkan driver on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pirl_contract.conformance import EnvConformance
from pirl_sim.maniskill import light_arm, world
from pirl_sim.maniskill.env import PandaEnv, make_env
from pirl_sim.maniskill.panda import CAMERA


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def make_with(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Any:
    """make_with(urdf, ...) makes an environment whose arm is built from that URDF, whatever was used before."""
    from mani_skill.agents.robots import Panda

    def make(urdf: Path, **arguments: Any) -> PandaEnv:
        monkeypatch.setattr(Panda, "urdf_path", str(urdf))
        monkeypatch.setattr(world, "use_light_arm", lambda: None)
        return make_env("PushCube-v1", **arguments)

    return make


def _arm_visibility(env: PandaEnv, visible: float) -> None:
    import sapien

    for link in env._world.robot.links:
        body = link.entity.find_component_by_type(sapien.render.RenderBodyComponent)
        if body is not None:
            body.visibility = visible


@pytest.mark.sim
def test_fifty_random_steps_are_identical_to_the_stock_arm(make_with: Any) -> None:
    stock, light = make_with(light_arm._installed()), make_with(light_arm.light_arm_urdf())
    rng = np.random.default_rng(0)
    for index in range(50):
        if index % 25 == 0:
            np.testing.assert_array_equal(stock.reset(index).state, light.reset(index).state)
        action = rng.uniform(-0.1, 0.1, 4).astype(np.float32)
        assert stock.step(action) == light.step(action)
        np.testing.assert_array_equal(stock.observe().state, light.observe().state)
    stock.close(), light.close()


@pytest.mark.render
def test_it_looks_like_the_stock_arm(make_with: Any) -> None:
    """Negative control: without any arm the picture differs more than twice as much."""
    stock, light = (
        make_with(urdf, cameras=True, image_size=96) for urdf in (light_arm._installed(), light_arm.light_arm_urdf())
    )
    wanted, got = (env.reset(0).images[CAMERA].astype(int) for env in (stock, light))
    _arm_visibility(light, 0.0)
    armless = light.observe().images[CAMERA].astype(int)
    stock.close(), light.close()
    assert wanted.std() > 10, "the picture is empty"
    assert np.abs(wanted - got).mean() < np.abs(wanted - armless).mean() / 2


@pytest.mark.sim
def test_the_build_is_cached_light_and_safe_to_race(cache: Path) -> None:
    import trimesh

    urdf = light_arm.light_arm_urdf()
    stamp = urdf.stat().st_mtime_ns
    assert light_arm.light_arm_urdf().stat().st_mtime_ns == stamp
    assert [path.name for path in (cache / "pirl").iterdir()] == [urdf.parent.name], "a build folder was left behind"
    parts = [part for mesh in urdf.parent.glob("*.glb") for part in trimesh.load_scene(mesh).dump()]
    assert 1000 < sum(len(part.faces) for part in parts) < 6000


@pytest.mark.render
class TestCameraEnv(EnvConformance):
    def make_env(self) -> PandaEnv:
        return make_env("PickCube-v1", cameras=True, image_size=32)
