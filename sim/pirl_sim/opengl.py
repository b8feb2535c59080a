"""Is there an OpenGL that MuJoCo can render with?"""

from __future__ import annotations

import os
from functools import cache

HINT = "install libegl1 and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa, before Python starts"


@cache
def require_opengl() -> None:
    """Raise RuntimeError, saying what to install and set, unless MuJoCo can make a picture without a window."""
    # MuJoCo's own choice is a window: no good in a worker process.
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco

        context = mujoco.GLContext(8, 8)
        context.make_current()
        context.free()
    except Exception as error:  # each binding fails with another type
        chosen = os.environ["MUJOCO_GL"]
        raise RuntimeError(
            f"cameras need OpenGL and MUJOCO_GL={chosen} found none: {HINT}, or use cameras=False ({error})"
        ) from error
