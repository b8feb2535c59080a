"""Demonstrations of robomimic: data/demo_N with actions, obs, next_obs, rewards and dones, and env_args as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pirl_contract import Contract
from pirl_server.config.interchange import ImportSettings
from pirl_server.interchange.episodes.hdf5_episodes import (
    Demo,
    Hdf5Source,
    Layout,
    array_at,
    arrays_below,
    is_image,
    is_vector,
    last_row_binary,
    open_file,
)

COLUMNS = ("rewards", "dones")


def open_source(path: Path, settings: ImportSettings, contract: Contract | None) -> Hdf5Source:
    """Open and check a file. Raises ValueError that names what is wrong and the fix."""
    return open_file(path, Layout("robomimic", _names, _demo, _rate, _success), settings, contract)


def _names(file: Any) -> Sequence[str]:
    if "data" not in file:
        raise ValueError(f"'{file.filename}' has no group 'data': it is no file of robomimic")
    names = [name for name in file["data"] if re.fullmatch(r"demo_\d+", name)]
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))


def _demo(file: Any, name: str) -> Demo:
    group = array_at(array_at(file, "data"), name)
    observed = arrays_below(array_at(group, "obs"))
    last = arrays_below(array_at(group, "next_obs")) if "next_obs" in group else {}
    return Demo(
        name,
        vectors={key: each for key, each in observed.items() if is_vector(each)},
        images={key.removesuffix("_image"): each for key, each in observed.items() if is_image(each)},
        action=array_at(group, "actions"),
        columns={key: array_at(group, key) for key in COLUMNS if key in group},
        last={key.removesuffix("_image") if is_image(each) else key: each for key, each in last.items()},
    )


def _rate(file: Any, path: Path) -> float | None:
    """Control frequency of the environment, where env_args has it."""
    raw = file["data"].attrs.get("env_args")
    if raw is None:
        return None
    try:
        found = json.loads(raw)["env_kwargs"]["control_freq"]
    except (KeyError, TypeError):
        return None
    except ValueError as error:
        raise ValueError(f"'{path}': env_args is not JSON: {error}") from None
    return float(found) if isinstance(found, int | float) else None


def _success(demo: Demo) -> bool | None:
    return last_row_binary(demo, "rewards")
