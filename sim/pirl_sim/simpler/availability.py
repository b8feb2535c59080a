"""Checks that ManiSkill and the assets of its Bridge tasks are installed, without the slow import."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

INSTALL = "pip install mani-skill==3.0.1 (the extra 'sim')"
ASSETS = {
    "bridge_v2_real2sim": "tasks/bridge_v2_real2sim_dataset",
    "widowx250s": "robots/widowx",
}
"""ManiSkill's names of the two downloads and where it puts them; the robot is the one it doesn't list with the tasks"""


def require_simpler() -> None:
    """Raise ValueError, saying what to install or download, unless the Bridge tasks can be loaded.

    ManiSkill itself would ask on stdin whether to download, which blocks a job.
    """
    if find_spec("mani_skill") is None:
        raise ValueError(f"tasks of SIMPLER need mani_skill: {INSTALL}")
    folder = assets_folder()
    missing = [name for name, place in ASSETS.items() if not (folder / place).is_dir()]
    if missing:
        commands = " and ".join(f"`python -m mani_skill.utils.download_asset {name} -y`" for name in missing)
        raise ValueError(
            f"tasks of SIMPLER need assets of ManiSkill that are not in {folder}: run {commands} "
            "(the variable MS_ASSET_DIR names another folder)"
        )


def assets_folder() -> Path:
    """Return where ManiSkill looks for downloaded assets."""
    return Path(os.environ.get("MS_ASSET_DIR") or Path.home() / ".maniskill") / "data"
