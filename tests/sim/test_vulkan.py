"""Without a usable Vulkan driver: refused in words that say what to install."""

from __future__ import annotations

import os
import sys

import pytest
from patience import completed

NO_DRIVER = {"VK_ICD_FILENAMES": "/nonexistent.json", "VK_DRIVER_FILES": "/nonexistent.json"}
SCRIPT = """
from pirl_sim.maniskill.env import make_env
for cameras in (False, True):
    try:
        make_env("PushCube-v1", cameras=cameras)
    except RuntimeError as error:
        print(cameras, error)
"""


@pytest.mark.slow
@pytest.mark.sim
def test_a_missing_driver_is_explained() -> None:
    done = completed([sys.executable, "-c", SCRIPT], env=os.environ | NO_DRIVER, limit_s=120)
    without, with_cameras = done.stdout.splitlines()
    assert without.startswith("False ManiSkill needs a Vulkan driver, even without cameras")
    assert with_cameras.startswith("True cameras need a Vulkan driver")
    for line in (without, with_cameras):
        assert "mesa-vulkan-drivers >= 23.2" in line
        assert "bookworm-backports" in line


def test_importing_the_package_loads_neither_torch_nor_simulator() -> None:
    script = (
        "import sys, pkgutil, importlib, pirl_sim\n"
        "for m in pkgutil.iter_modules(pirl_sim.__path__): importlib.import_module(f'pirl_sim.{m.name}')\n"
        "loaded = {'torch', 'mani_skill', 'sapien', 'gymnasium', 'mujoco', 'metaworld'} & set(sys.modules)\n"
        "print(sorted(loaded), len(sys.modules) > 50)"
    )
    done = completed([sys.executable, "-c", script], check=True, limit_s=120)
    assert done.stdout.split("]")[0] == "[", done.stdout
