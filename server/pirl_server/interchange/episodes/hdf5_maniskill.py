"""Trajectories of ManiSkill: traj_N with actions [T], obs [T + 1] and success, and a JSON file of the same name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from pirl_contract import Contract
from pirl_server.config.interchange import ImportSettings
from pirl_server.interchange.checkpoints.source_folder import inside, read_object
from pirl_server.interchange.episodes.hdf5_episodes import (
    Demo,
    Hdf5Source,
    Layout,
    array_at,
    arrays_below,
    is_image,
    is_vector,
    open_file,
)

COLUMNS = ("success", "rewards", "fail")
RGB = re.compile(r"(?:sensor_data|images)\.(.+)\.(?:rgb|Color)$")


def open_source(path: Path, settings: ImportSettings, contract: Contract | None) -> Hdf5Source:
    """Open and check a file. Raises ValueError that names what is wrong and the fix."""
    return open_file(path, Layout("maniskill", _names, _demo, _rate, _success), settings, contract)


def _names(file: Any) -> Sequence[str]:
    names = [name for name in file if re.fullmatch(r"traj_\d+", name)]
    return sorted(names, key=lambda name: int(name.removeprefix("traj_")))


def _demo(file: Any, name: str) -> Demo:
    group = array_at(file, name)
    if "obs" not in group:
        raise ValueError(
            f"'{file.filename}', {name} has no observations: replay it with an observation mode first (python -m"
            " mani_skill.trajectory.replay_trajectory -o rgb --save-traj)"
        )
    observed = array_at(group, "obs")
    arrays = {"obs": observed} if isinstance(observed, h5py.Dataset) else arrays_below(observed)
    pixels = {key: each for key, each in arrays.items() if is_image(each)}
    return Demo(
        name,
        vectors={key: each for key, each in arrays.items() if is_vector(each) and not key.startswith("sensor_param")},
        images={(RGB.match(key) or [key, key])[1]: each for key, each in pixels.items()},
        action=array_at(group, "actions"),
        columns={key: array_at(group, key) for key in COLUMNS if key in group},
        last={},
    )


def _rate(file: Any, path: Path) -> float | None:
    """Control frequency, where the recording changed it: ManiSkill does not store its default."""
    kwargs = read_object(inside(path.parent, path.with_suffix(".json"))).get("env_info", {}).get("env_kwargs", {})
    found = (kwargs.get("sim_config") or {}).get("control_freq")
    return float(found) if isinstance(found, int | float) else None


def _success(demo: Demo) -> bool | None:
    """As ManiSkill counts it: at the end."""
    return bool(demo.columns["success"][-1]) if "success" in demo.columns else None
