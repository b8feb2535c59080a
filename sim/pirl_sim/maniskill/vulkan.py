"""Checks for a Vulkan driver that SAPIEN accepts."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

HINT = (
    "install mesa-vulkan-drivers >= 23.2 and libvulkan1 "
    "(on Debian 12: apt-get install -t bookworm-backports mesa-vulkan-drivers)"
)


def require_vulkan(cameras: bool) -> None:
    """Raise RuntimeError, saying what to install, unless the driver does what is asked of it.

    Any Vulkan driver will do without cameras: ManiSkill describes the scene's colours to it even when nothing is
    rendered. Cameras need one that renders on the CPU with the features SAPIEN uses.
    """
    # One render thread per process: more only fight with the physics for the same cores.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    import sapien

    try:
        if cameras:
            _kept_renderer()
        else:
            sapien.render.RenderMaterial()
    except RuntimeError as error:
        need = "cameras need a Vulkan driver" if cameras else "ManiSkill needs a Vulkan driver, even without cameras,"
        remedy = f"{HINT}, or use cameras=False" if cameras else HINT
        raise RuntimeError(f"{need} that SAPIEN accepts, but none was found: {remedy} (SAPIEN: {error})") from error


@cache
def _kept_renderer() -> Any:
    """Return a renderer that lives as long as the process.

    The first image of a process costs some 11 s of CPU time (a software driver computes SAPIEN's reflection tables);
    they are freed with the last renderer, so without this one the next environment would pay again.
    """
    import sapien

    return sapien.render.RenderSystem(sapien.Device("cpu"))
