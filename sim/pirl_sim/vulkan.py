"""Is there a Vulkan driver on the CPU that SAPIEN accepts?"""

from __future__ import annotations

import os

HINT = (
    "cameras need a Vulkan driver that SAPIEN accepts and none was found. Install mesa-vulkan-drivers >= 23.2 and "
    "libvulkan1 (on Debian 12: apt-get install -t bookworm-backports mesa-vulkan-drivers), or use cameras=False"
)


def require_vulkan() -> None:
    """Raise RuntimeError, saying what to install, unless SAPIEN can render on the CPU."""
    # One render thread per process: more only fight with the physics for the same cores.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    import sapien

    try:
        sapien.render.RenderSystem(sapien.Device("cpu"))
    except RuntimeError as error:
        raise RuntimeError(f"{HINT} (SAPIEN says: {error})") from error
