"""Checks for an OpenGL that MuJoCo can render with."""

from __future__ import annotations

import os
from functools import cache
from importlib import reload

HINT = "install libegl1 and set MUJOCO_GL=egl, or libosmesa6 and MUJOCO_GL=osmesa, before Python starts"


@cache
def require_opengl() -> None:
    """Raise RuntimeError, saying what to install and set, unless MuJoCo can make an image without a window."""
    # MuJoCo's own choice is a window: no good in a worker process.
    os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        from mujoco import gl_context

        # It chose when it was imported, perhaps by an environment without cameras, before the variable stood.
        context = reload(gl_context).GLContext(8, 8)
        context.make_current()
        context.free()
    except Exception as error:  # each binding fails with another type
        chosen = os.environ["MUJOCO_GL"]
        raise RuntimeError(
            f"cameras need OpenGL, but MUJOCO_GL={chosen} found none: {HINT}, or use cameras=False ({error})"
        ) from error
