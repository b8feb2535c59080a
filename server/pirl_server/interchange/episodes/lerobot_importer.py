"""Reads a LeRobotDataset as episodes: with pirl's policy calls where an export has them, else as demonstrations.

LeRobot has the observation before each action and none after the last one: an episode of F frames becomes F - 1 steps
and the last observation; the last frame's action, which nothing followed, is left out.

Shape letters: F frames of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource
from pirl_contract.schema import check_instruction
from pirl_server.config.interchange import ImportSettings
from pirl_server.episodes.schema import PIXELS_KEY, Episode
from pirl_server.interchange.checkpoints.source_folder import read_object
from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes import sidecar
from pirl_server.interchange.episodes.demonstration import (
    FOREIGN,
    LABEL_SOURCE,
    Recording,
    content_id,
    demonstration,
)
from pirl_server.interchange.episodes.formats import Candidate
from pirl_server.interchange.episodes.image_rows import image_rows
from pirl_server.interchange.episodes.lerobot_dataset import Dataset, Entry, read_info
from pirl_server.interchange.episodes.lerobot_index import open_dataset
from pirl_server.interchange.episodes.lerobot_labels import Labelling, labelling
from pirl_server.interchange.episodes.matching import (
    LEFT_OUT,
    check_rate,
    check_renames,
    contract_of,
    dataset_names,
    match_cameras,
    match_entries,
    pairs,
)
from pirl_server.interchange.episodes.ranges import Ranges

NANOSECONDS = 1e9


@dataclass(frozen=True)
class _Plan:
    """How every episode of a dataset is read."""

    dataset: Dataset
    settings: ImportSettings
    contract: Contract
    state: NDArray[np.int64]
    """positions of the contract's entries"""
    action: NDArray[np.int64]
    cameras: Mapping[str, str]
    """camera of the contract -> key"""
    labels: Labelling


class LerobotSource:
    """See `formats.Source`."""

    def __init__(self, plan: _Plan, lines: Sequence[str]) -> None:
        self._plan, self.lines = plan, tuple(lines)

    def __len__(self) -> int:
        return len(self._plan.dataset.entries)

    def __iter__(self) -> Iterator[Candidate]:
        for entry in self._plan.dataset.entries:
            yield _candidate(self._plan, entry)


def open_source(path: Path, settings: ImportSettings, contract: Contract | None) -> LerobotSource:
    """Open and check a dataset: versions, files, names, widths, sizes, rate, stamps, tasks and ranges.

    Raises ValueError that names what is wrong and the fix.
    """
    info = read_info(path)
    _check_features(info, settings)
    left_out = [key for key in _image_keys(info) if _target(key, settings) == LEFT_OUT]
    dataset = open_dataset(path, left_out)
    overridden = settings.without_calls and contract is not None
    robot = contract_of(contract, None if overridden else _own_contract(path, info))
    check_rate(info.fps, robot)
    state_names, action_names = (_names(info, key) for key in (layout.STATE, layout.ACTION))
    check_renames([*(state_names or []), *(action_names or [])], settings)
    sizes = {key: (0, 0) if key in left_out else _size(key, info.features[key]) for key in _image_keys(info)}
    plan = _Plan(
        dataset,
        settings,
        robot,
        match_entries("state", state_names, _width(info, layout.STATE), robot.state, settings),
        match_entries("action", action_names, _width(info, layout.ACTION), robot.action, settings),
        match_cameras(sizes, robot, settings, layout.IMAGES),
        labelling(dataset, settings.success),
    )
    ranges = _check_numbers(plan)
    return LerobotSource(plan, [*dataset.lines, *_lines(plan), *ranges])


def _candidate(plan: _Plan, entry: Entry) -> Candidate:
    name = f"episode {entry.index}"
    path = _sidecar_path(plan, entry)
    if path is None:
        return Candidate(name, _content(plan, entry), partial(_demonstration, plan, entry))
    found = sidecar.read(path)
    _check_sidecar(plan, entry, found, path)
    lossy = found.images_as == "video"
    number = content_id("video", found.info.id) if lossy else found.info.id
    return Candidate(name, number, partial(_original, plan, entry, found, number), found.info.id)


def _sidecar_path(plan: _Plan, entry: Entry) -> Path | None:
    path = plan.dataset.folder / layout.SIDECAR / f"episode-{entry.index:06d}.safetensors"
    return None if plan.settings.without_calls or not path.is_file() else path


def _check_sidecar(plan: _Plan, entry: Entry, found: sidecar.Sidecar, path: Path) -> None:
    """Raise ValueError when it does not belong to these frames."""
    columns = plan.dataset.columns(entry, [layout.STATE, layout.ACTION])
    rows = content_id(_vectors(columns[layout.STATE]), _vectors(columns[layout.ACTION]))
    if rows != found.rows:
        raise ValueError(
            f"'{path}': the numbers of episode {entry.index} were changed after pirl exported them: its policy calls"
            " don't belong to them any more; import as demonstrations with --without-calls"
        )
    if difference := found.info.contract.difference(plan.contract):
        raise ValueError(f"'{path}' is of another contract: {difference[0]}")


def _original(plan: _Plan, entry: Entry, found: sidecar.Sidecar, number: str) -> Episode:
    """The episode that was exported."""
    episode = found.episode(_images(plan, entry))
    info = replace(episode.info, id=number)
    if found.images_as == "video":
        info = replace(info, metadata={**info.metadata, PIXELS_KEY: "video"})
    if plan.settings.robot_id is not None:
        info = replace(info, robot_id=plan.settings.robot_id)
    if plan.settings.success != "auto":
        success = plan.labels.success(entry)
        info = replace(info, success=success, label_source="" if success is None else LABEL_SOURCE)
    return replace(episode, info=info)


def _demonstration(plan: _Plan, entry: Entry) -> Episode:
    settings = plan.settings
    columns = plan.dataset.columns(entry, [layout.STATE, layout.ACTION, layout.TIMESTAMP, *_reward(plan)])
    reward = columns.get(layout.REWARD)
    recording = Recording(
        state=_vectors(columns[layout.STATE])[:, plan.state],
        action=_vectors(columns[layout.ACTION])[:-1, plan.action],
        images=_images(plan, entry),
        time_ns=_times(columns[layout.TIMESTAMP]),
        instruction=_instruction(plan, entry),
        success=plan.labels.success(entry),
        reward=None if reward is None else reward[:-1].reshape(-1).astype(np.float32),
        metadata={"imported_from": "lerobot", "dataset_episode": str(entry.index)},
    )
    driver = ControlSource.HUMAN if settings.driver == "human" else ControlSource.POLICY
    robot_id = settings.robot_id or FOREIGN
    try:
        return demonstration(recording, plan.contract, robot_id, driver, _content(plan, entry))
    except ValueError as error:
        raise ValueError(f"'{plan.dataset.folder}', episode {entry.index}: {error}") from None


def _content(plan: _Plan, entry: Entry) -> str:
    """From what was recorded and the robot that it is read for; not from labels, which may be given again."""
    columns = plan.dataset.columns(entry, [layout.STATE, layout.ACTION, layout.TIMESTAMP])
    images = [part for name in sorted(plan.cameras) for part in (name, _digest(plan, entry, name))]
    state, action = _vectors(columns[layout.STATE]), _vectors(columns[layout.ACTION])
    numbers = (state[:, plan.state], action[:, plan.action], _times(columns[layout.TIMESTAMP]))
    return content_id("lerobot", plan.contract.hash, _instruction(plan, entry), *numbers, *images)


def _digest(plan: _Plan, entry: Entry, camera: str) -> bytes:
    return plan.dataset.image_digest(entry, plan.cameras[camera])


def _images(plan: _Plan, entry: Entry) -> dict[str, NDArray[np.uint8]]:
    found = {}
    for camera in plan.contract.cameras:
        key = plan.cameras[camera.name]
        images = plan.dataset.images(entry, key)
        try:
            found[camera.name] = image_rows(images, entry.length, camera.height, camera.width)
        except ValueError as error:
            raise ValueError(f"'{plan.dataset.folder}', episode {entry.index}, '{key}': {error}") from None
    return found


def _instruction(plan: _Plan, entry: Entry) -> str:
    """The only task of an episode. Raises ValueError when it has several, or one without a text."""
    if plan.settings.instruction is not None:
        return plan.settings.instruction
    where = f"'{plan.dataset.folder}', episode {entry.index}"
    indexes = np.unique(plan.dataset.columns(entry, [layout.TASK])[layout.TASK]).tolist()
    unknown = [index for index in indexes if index not in plan.dataset.tasks]
    if len(indexes) != 1 or unknown:
        why = f"no text for task_index {unknown[0]}" if unknown else f"{len(indexes)} tasks"
        raise ValueError(f"{where} has {why}: an episode has one instruction, give it with --instruction TEXT")
    text = plan.dataset.tasks[indexes[0]]
    try:
        check_instruction(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return text


def _check_numbers(plan: _Plan) -> list[str]:
    """Read all numbers once, before anything is written; return what is worth a look."""
    dataset, ranges = plan.dataset, Ranges(plan.contract)
    videos = [key for key in plan.cameras.values() if dataset.info.features[key].dtype == "video"]
    late = 0
    for entry in dataset.entries:
        columns = dataset.columns(entry, [layout.STATE, layout.ACTION, layout.TIMESTAMP])
        _instruction(plan, entry)
        for kind, key, positions in (("state", layout.STATE, plan.state), ("action", layout.ACTION, plan.action)):
            ranges.add(kind, _vectors(columns[key])[:, positions], f"'{entry.data}', episode {entry.index}")
        stamps = columns[layout.TIMESTAMP].reshape(-1)
        apart = np.abs(stamps - stamps[:1] - np.arange(len(stamps)) / dataset.info.fps)
        if videos and apart.max() > 0.5 / dataset.info.fps:
            frame = int(apart.argmax())
            raise ValueError(
                f"'{entry.data}', episode {entry.index}: frame {frame} is stamped {stamps[frame]:g} s, at"
                f" {dataset.info.fps:g} frames per second it is at {frame / dataset.info.fps:g} s: its image can't be"
                " found in the video; leave the images out with --camera KEY=-, or write the stamps again"
            )
        late += int((apart > 0.5 / dataset.info.fps).sum())
    lines = [f"{late} frames are stamped more than half a period off; their stamps are kept"] if late else []
    return [*lines, *ranges.check()]


def _lines(plan: _Plan) -> list[str]:
    dataset, cameras = plan.dataset, ", ".join(f"{name} <- {key}" for name, key in plan.cameras.items())
    calls = sum(_sidecar_path(plan, entry) is not None for entry in dataset.entries)
    driver = f"the others are demonstrations, driven by '{plan.settings.driver}'"
    tasks = sorted({_instruction(plan, entry) for entry in dataset.entries})
    return [
        f"dataset   {dataset.info.codebase_version}, {len(dataset.entries)} episodes, {dataset.info.fps:g} Hz",
        f"robot     {plan.contract.robot}, state {len(plan.state)}, action {len(plan.action)}",
        f"cameras   {cameras or 'none'}",
        f"tasks     {'; '.join(tasks[:5])}{' ...' if len(tasks) > 5 else ''}",
        f"label     {plan.labels.said}",
        f"calls     of {calls} episodes{'' if calls == len(dataset.entries) else f'; {driver}'}",
    ]


def _own_contract(folder: Path, info: layout.Info) -> Contract | None:
    """Of an export of pirl. lerobot removes it from info.json when it appends; a copy lies beside the calls."""
    about: dict[str, Any] = info.pirl or {}
    if not about and (folder / layout.ABOUT).is_file():
        about = read_object(folder / layout.ABOUT)
    return Contract.from_json(json.dumps(about["contract"])) if "contract" in about else None


def _check_features(info: layout.Info, settings: ImportSettings) -> None:
    for key in (layout.STATE, layout.ACTION):
        if key not in info.features:
            raise ValueError(f"the dataset has no '{key}', only {', '.join(info.features)[:500]}")
    for key, each in info.features.items():
        if each.is_depth and _target(key, settings) != LEFT_OUT:
            raise ValueError(
                f"'{key}' is a depth map, for which a contract has no camera: leave it out with --camera"
                f" {key.removeprefix(layout.IMAGES)}={LEFT_OUT}"
            )


def _image_keys(info: layout.Info) -> list[str]:
    return [key for key, each in info.features.items() if each.dtype in ("image", "video")]


def _target(key: str, settings: ImportSettings) -> str | None:
    chosen = pairs(settings.camera, "--camera")
    return chosen.get(key, chosen.get(key.removeprefix(layout.IMAGES)))


def _size(key: str, feature: layout.Feature) -> tuple[int, int]:
    """Height and width. lerobot writes channels last; channels first is read where names say so."""
    shape, names = feature.shape, dataset_names(feature.names) or []
    first = len(names) == 3 and names[0].startswith("channel")
    if len(shape) != 3 or shape[0 if first else 2] != 3:
        raise ValueError(f"'{key}' has shape {shape} and names {names}: an image of three channels is expected")
    return (shape[1], shape[2]) if first else (shape[0], shape[1])


def _names(info: layout.Info, key: str) -> list[str] | None:
    try:
        return dataset_names(info.features[key].names)
    except ValueError as error:
        raise ValueError(f"'{key}': {error}; take the entries in the contract's order with --positional") from None


def _width(info: layout.Info, key: str) -> int:
    shape = info.features[key].shape
    if len(shape) != 1:
        raise ValueError(f"'{key}' has shape {shape}, a vector is expected")
    return shape[0]


def _reward(plan: _Plan) -> list[str]:
    return [layout.REWARD] if layout.REWARD in plan.dataset.info.features else []


def _vectors(values: NDArray[Any]) -> NDArray[np.float32]:
    """[F, V]; lerobot stores vectors of one entry as numbers."""
    return values.reshape(len(values), -1).astype(np.float32)


def _times(stamps_s: NDArray[Any]) -> NDArray[np.int64]:
    return np.round(stamps_s.reshape(-1).astype(np.float64) * NANOSECONDS).astype(np.int64)
