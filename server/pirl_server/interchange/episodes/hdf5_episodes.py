"""Episodes of an HDF5 file, of any layout: arrays by path, matched with the contract by name.

A layout (`hdf5_robomimic`, `hdf5_maniskill`) says which arrays of an episode are observations, actions and labels. An
entry of a vector is named by its array and its place, `robot0_eef_pos.0`; an array of single numbers is one entry.

Shape letters: F observations of an episode, T its actions, E entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource
from pirl_server.config.interchange import ImportSettings
from pirl_server.interchange.checkpoints.source_folder import one_line
from pirl_server.interchange.episodes.demonstration import FOREIGN, Recording, content_id, demonstration
from pirl_server.interchange.episodes.formats import Candidate
from pirl_server.interchange.episodes.image_rows import image_rows
from pirl_server.interchange.episodes.matching import (
    LEFT_OUT,
    check_rate,
    check_renames,
    contract_of,
    match_cameras,
    match_entries,
    pairs,
)
from pirl_server.interchange.episodes.ranges import Ranges

NANOSECONDS = 10**9
ACTION = "action"
"""what the entries of the action are named after"""


@dataclass(frozen=True)
class Demo:
    """The arrays of one episode in an open file."""

    name: str
    vectors: Mapping[str, Any]
    """by name [F, E] or [F]: what the robot felt at each observation"""
    images: Mapping[str, Any]
    """by name [F, height, width, 3]"""
    action: Any
    """[T, E]"""
    columns: Mapping[str, Any]
    """by name [T]: numbers that may say whether it succeeded"""
    last: Mapping[str, Any]
    """by name: arrays whose last row is the observation after the last action, where the others end before it"""


@dataclass(frozen=True)
class Layout:
    """Where a program keeps what."""

    program: str
    names: Callable[[Any], Sequence[str]]
    """file -> its episodes, in order"""
    demo: Callable[[Any, str], Demo]
    """file and name -> the episode. Raises KeyError for an array that is not there"""
    rate_hz: Callable[[Any, Path], float | None]
    """None: the file does not say"""
    success: Callable[[Demo], bool | None]
    """the program's own label; None: it has none"""


@dataclass(frozen=True)
class _Plan:
    path: Path
    layout: Layout
    settings: ImportSettings
    contract: Contract
    names: Sequence[str]
    state: NDArray[np.int64]
    action: NDArray[np.int64]
    cameras: Mapping[str, str]
    instruction: str


class Hdf5Source:
    """See `formats.Source`."""

    def __init__(self, plan: _Plan, lines: Sequence[str]) -> None:
        self._plan, self.lines = plan, tuple(lines)

    def __len__(self) -> int:
        return len(self._plan.names)

    def __iter__(self) -> Iterator[Candidate]:
        for name in self._plan.names:
            with opened(self._plan.path) as file, _named(self._plan, name):
                number = _content(self._plan, _demo(self._plan.layout, file, name))
            yield Candidate(name, number, partial(_read, self._plan, name, number))


def open_file(path: Path, layout: Layout, settings: ImportSettings, contract: Contract | None) -> Hdf5Source:
    """Open and check a file. Raises ValueError that names what is wrong and the fix."""
    robot = contract_of(contract, None)
    if settings.instruction is None:
        raise ValueError(f"'{path}' does not say what the robot was to do: give it with --instruction TEXT")
    with opened(path) as file:
        names = layout.names(file)
        if not names:
            raise ValueError(f"'{path}' holds no episode of {layout.program}")
        rate = layout.rate_hz(file, path)
        if rate is not None:
            check_rate(rate, robot)
        first = _demo(layout, file, names[0])
        plan = _planned(path, layout, settings, robot, names, first)
        ranges = Ranges(robot)
        for name in names:
            demo = _demo(layout, file, name)
            with _named(plan, name):
                _check_demo(plan, first, demo)
                ranges.add("state", _state(plan, demo), f"'{path}', {name}")
                ranges.add("action", _actions(plan, demo), f"'{path}', {name}")
                _success(plan, demo)
    return Hdf5Source(plan, [*_lines(plan, rate), *ranges.check()])


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An HDF5 file. Raises ValueError that names it when it can't be read, also later while it is open."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise ValueError(f"'{path}' can't be read as HDF5: {one_line(error)}") from None


def array_at(group: Any, name: str) -> Any:
    """An array of the file itself.

    Raises KeyError when there is none, ValueError for one whose numbers lie in another file.
    """
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        raise ValueError(f"'{group.name}/{name}' is a link: copy what it leads to into the file")
    found = group[name]
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        raise ValueError(f"'{found.name}' keeps its numbers in another file: copy them into this one")
    return found


def arrays_below(group: Any, prefix: str = "") -> dict[str, Any]:
    """All arrays below a group by their path, with dots. Raises ValueError as `array_at`."""
    found: dict[str, Any] = {}
    for name in group:
        each = array_at(group, name)
        if isinstance(each, h5py.Group):
            found |= arrays_below(each, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = each
    return found


def is_image(array: Any) -> bool:
    """Whether an array holds RGB images."""
    return bool(array.ndim == 4 and array.shape[3] == 3 and array.dtype == np.uint8)


def is_vector(array: Any) -> bool:
    """Whether an array holds numbers or vectors of them, one a row."""
    return bool(array.ndim in (1, 2) and array.dtype.kind in "fiub")


def last_row_binary(demo: Demo, name: str) -> bool | None:
    """Whether a column that is 0 or 1 alone was ever 1; None: it is not there, or has other values."""
    if name not in demo.columns:
        return None
    values = demo.columns[name][()]
    return bool((values == 1).any()) if np.isin(values, (0, 1)).all() else None


def _planned(
    path: Path, layout: Layout, settings: ImportSettings, robot: Contract, names: Sequence[str], first: Demo
) -> _Plan:
    entries, width = _entries(first, settings), first.action.shape[1]
    actions = [f"{ACTION}.{place}" for place in range(width)]
    vectors = [name for name in first.vectors if name in pairs(settings.rename, "--rename")]
    check_renames([*entries, *actions, *vectors], settings)
    by_name = replace(settings, positional=False)  # entries of the state have names
    sizes = {name: (array.shape[1], array.shape[2]) for name, array in first.images.items()}
    return _Plan(
        path,
        layout,
        settings,
        robot,
        names,
        match_entries("state", entries, len(entries), robot.state, by_name),
        match_entries(ACTION, None if settings.positional else actions, width, robot.action, settings),
        match_cameras(sizes, robot, settings, ""),
        str(settings.instruction),
    )


def _entries(demo: Demo, settings: ImportSettings) -> list[str]:
    """Names of the entries of all vectors that are not left out as a whole."""
    renames, found = pairs(settings.rename, "--rename"), list[str]()
    for name, array in demo.vectors.items():
        if renames.get(name) != LEFT_OUT or array.ndim == 1:
            found += [name] if array.ndim == 1 else [f"{name}.{place}" for place in range(array.shape[1])]
    return found


def _demo(layout: Layout, file: Any, name: str) -> Demo:
    try:
        return layout.demo(file, name)
    except KeyError as error:
        raise ValueError(f"'{file.filename}', {name}: no {error}: not a file of {layout.program}") from None


def _check_demo(plan: _Plan, first: Demo, demo: Demo) -> None:
    """Raise ValueError for an episode of other arrays than the first, or of other lengths than its actions."""
    count = len(demo.action)
    for ours, theirs in ((first.vectors, demo.vectors), (first.images, demo.images)):
        if {name: each.shape[1:] for name, each in ours.items()} != {n: each.shape[1:] for n, each in theirs.items()}:
            raise ValueError(f"other arrays, or other widths, than in '{first.name}'")
    for name, array in {**demo.vectors, **demo.images}.items():
        rows = len(array) + (1 if name in demo.last else 0)
        if rows not in (count, count + 1):
            raise ValueError(f"'{name}' has {len(array)} rows for {count} actions")
    if len({len(array) for array in {**demo.vectors, **demo.images}.values()}) > 1:
        raise ValueError("the observations have different lengths")


def _rows(demo: Demo, name: str, array: Any) -> NDArray[Any]:
    """An observation's array [F, ...] with the last observation, where there is one."""
    rows: NDArray[Any] = array[()]
    last = demo.last.get(name)
    return rows if last is None else np.concatenate([rows, last[-1:]])


def _state(plan: _Plan, demo: Demo) -> NDArray[np.float32]:
    renames = pairs(plan.settings.rename, "--rename")
    parts = [
        _rows(demo, name, array).reshape(len(array) + (name in demo.last), -1)
        for name, array in demo.vectors.items()
        if renames.get(name) != LEFT_OUT or array.ndim == 1
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)[:, plan.state]


def _actions(plan: _Plan, demo: Demo) -> NDArray[np.float32]:
    """As many as are followed by an observation."""
    actions: NDArray[np.float32] = demo.action[()].astype(np.float32)[:, plan.action]
    return actions[: len(_state(plan, demo)) - 1]


def _success(plan: _Plan, demo: Demo) -> bool | None:
    choice = plan.settings.success
    if choice in ("all", "none", "unlabelled"):
        return {"all": True, "none": False, "unlabelled": None}[choice]
    if choice == "auto":
        return plan.layout.success(demo)
    if choice not in demo.columns:
        raise ValueError(f"--success {choice}: no such column; there are {', '.join(demo.columns) or 'none'}")
    return bool((demo.columns[choice][()] > 0).any())


def _content(plan: _Plan, demo: Demo) -> str:
    images = [part for camera in sorted(plan.cameras) for part in (camera, demo.images[plan.cameras[camera]][()])]
    numbers = (_state(plan, demo), _actions(plan, demo))
    return content_id(plan.layout.program, plan.contract.hash, plan.instruction, *numbers, *images)


def _read(plan: _Plan, name: str, number: str) -> Any:
    settings = plan.settings
    with opened(plan.path) as file, _named(plan, name):
        demo = _demo(plan.layout, file, name)
        state, action = _state(plan, demo), _actions(plan, demo)
        reward = next((demo.columns[each] for each in ("rewards", "reward") if each in demo.columns), None)
        images = {}
        for camera in plan.contract.cameras:
            key = plan.cameras[camera.name]
            images[camera.name] = image_rows(_images(demo, key), len(state), camera.height, camera.width)
        recording = Recording(
            state=state,
            action=action,
            images=images,
            time_ns=(np.arange(len(state)) * NANOSECONDS / plan.contract.rate_hz).round().astype(np.int64),
            instruction=plan.instruction,
            success=_success(plan, demo),
            reward=None if reward is None else reward[()].astype(np.float32)[: len(action)],
            metadata={"imported_from": plan.layout.program, "dataset_episode": name},
        )
    driver = ControlSource.HUMAN if settings.driver == "human" else ControlSource.POLICY
    with _named(plan, name):
        return demonstration(recording, plan.contract, settings.robot_id or FOREIGN, driver, number)


def _images(demo: Demo, key: str) -> Iterator[NDArray[np.uint8]]:
    array = demo.images[key]
    for row in range(len(array)):
        yield array[row]
    if key in demo.last:
        yield demo.last[key][-1]


@contextmanager
def _named(plan: _Plan, name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"'{plan.path}', {name}: {error}") from None


def _lines(plan: _Plan, rate: float | None) -> list[str]:
    cameras = ", ".join(f"{name} <- {key}" for name, key in plan.cameras.items())
    said = "not in the file; the contract's is taken" if rate is None else f"{rate:g} Hz"
    return [
        f"file      {plan.layout.program}, {len(plan.names)} episodes, rate {said}",
        f"robot     {plan.contract.robot}, state {len(plan.state)}, action {len(plan.action)}",
        f"cameras   {cameras or 'none'}",
        f"calls     none: demonstrations, driven by '{plan.settings.driver}'",
    ]
