"""Writes episodes as a LeRobotDataset v3.0 that lerobot 0.6.1 opens, trains on and appends to.

A frame is an executed step at the contract's rate. Policy calls, and what a step has beyond its action, lie in a folder
beside `data` (see `sidecar`). The dataset is written elsewhere and renamed when it is whole.

Shape letters: F frames of an episode.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pirl_contract import Contract
from pirl_server.config.interchange import ExportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.checkpoints.staging import staged
from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes import sidecar
from pirl_server.interchange.episodes.demonstration import content_id
from pirl_server.interchange.episodes.formats import CancelledError, Progress
from pirl_server.interchange.episodes.lerobot_frames import Frames, frames
from pirl_server.interchange.episodes.lerobot_stats import (
    STATEMENT,
    ImageLevels,
    Stats,
    flat,
    sampled,
    vector_stats,
)
from pirl_server.interchange.episodes.lerobot_tables import (
    column,
    data_schema,
    frames_writer,
    image_column,
    png,
    write_episodes,
    write_tasks,
)
from pirl_server.interchange.episodes.lerobot_video import CODEC, MIN_PSNR_DB, QUALITY, VideoWriter

MIB = 2**20
HELD = (
    f"images are there at policy calls alone: a frame in between holds those of the last call before it, and its"
    f" {layout.OBSERVED} is false"
)


def write(
    episodes: Sequence[Callable[[], Episode]], out: Path, settings: ExportSettings, progress: Progress
) -> Sequence[str]:
    """Write the episodes in this order; return what a person should know of the result, one line each.

    Raises ValueError when `out` exists, when no episode can be a frame, and when the contract's rate is no whole
    number; CancelledError when it is cancelled. Nothing is left of it then.
    """
    with staged(out) as folder:
        dataset = _Dataset(folder, settings.images)
        with ExitStack() as closing:
            closing.callback(dataset.close)
            for number, opener in enumerate(episodes):
                if progress.cancelled:
                    raise CancelledError(f"cancelled after {number} of {len(episodes)} episodes: nothing was written")
                dataset.add(opener())
                progress.progress(number + 1, len(episodes), "episodes written")
        return dataset.finish()


class _Dataset:
    """A dataset that is being written."""

    def __init__(self, folder: Path, images_as: str) -> None:
        self._folder, self._images_as = folder, images_as
        self._contract: Contract | None = None
        self._tasks = dict[str, int]()
        self._rows = list[dict[str, Any]]()
        self._columns = dict[str, list[NDArray[Any]]]()
        self._levels = dict[str, ImageLevels]()
        self._videos = dict[str, _VideoFiles]()
        self._data: _DataFiles | None = None
        self._left_out, self._without_frame, self._unlabelled, self._held = Counter[str](), 0, 0, 0
        self._total = 0

    def add(self, episode: Episode) -> None:
        """Append an episode, unless it has nothing that LeRobot can hold; `finish` says how many were left out."""
        if self._contract is None:
            self._begin(episode.info.contract)
        paired = frames(episode)
        if why := _fault(episode, paired):
            self._left_out[why] += 1
            return
        assert self._data is not None
        number = len(self._rows)
        values = self._values(episode, paired, number)
        self._data.add(values, self._coded(episode, paired))
        place = self._data.place | {
            "dataset_from_index": self._total,
            "dataset_to_index": self._total + len(paired),
        }
        for name, video in self._videos.items():
            place |= video.add(name, episode.calls.images[name.removeprefix(layout.IMAGES)], paired.call)
        stats = {name: vector_stats(array) for name, array in values.items()} | self._image_stats(episode, paired)
        self._rows.append(
            {"episode_index": number, "tasks": [episode.info.instruction], "length": len(paired)} | place | flat(stats)
        )
        for name, array in values.items():
            self._columns.setdefault(name, []).append(array)
        sidecar.write(
            self._folder / layout.SIDECAR / f"episode-{number:06d}.safetensors",
            episode,
            paired.frame_of_call if episode.info.contract.cameras else {},
            content_id(values[layout.STATE], values[layout.ACTION]),
            self._images_as if episode.info.contract.cameras else "png",
        )
        self._total += len(paired)
        self._without_frame += paired.first
        self._held += int((~paired.own).sum()) if episode.info.contract.cameras else 0
        self._unlabelled += episode.info.success is None

    def close(self) -> None:
        """End all files."""
        if self._data is not None:
            self._data.close()
        for video in self._videos.values():
            video.close()

    def finish(self) -> list[str]:
        """Write the tables. Raises ValueError when the dataset would be empty."""
        if not self._rows or self._contract is None:
            why = ", ".join(f"{count} {reason}" for reason, count in self._left_out.items())
            raise ValueError(f"no episode can be exported: {why}")
        for row in self._rows:
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        path = self._folder / layout.EPISODES.format(chunk_index=0, file_index=0)
        write_episodes(path, self._rows)
        write_tasks(self._folder, list(self._tasks))
        stats = {name: vector_stats(np.concatenate(parts)) for name, parts in self._columns.items()}
        stats |= {name: levels.stats() for name, levels in self._levels.items()}
        (self._folder / layout.STATS).write_text(json.dumps(stats, indent=4, allow_nan=False))
        about = self._about(self._contract)
        (self._folder / layout.ABOUT).write_text(json.dumps(about, indent=4))
        info = self._info(self._contract) | {"pirl": about}
        (self._folder / layout.INFO).write_text(json.dumps(info, indent=4, allow_nan=False))
        return self._lines()

    def _begin(self, contract: Contract) -> None:
        self._contract = contract
        fps = layout.frames_per_second(contract)
        self._features = layout.features(contract, self._images_as)
        self._data = _DataFiles(self._folder, data_schema(self._features))
        for camera in contract.cameras:
            name = layout.IMAGES + camera.name
            self._levels[name] = ImageLevels()
            if self._images_as == "video":
                self._videos[name] = _VideoFiles(self._folder, name, VideoWriter(fps, camera.height, camera.width))

    def _values(self, episode: Episode, paired: Frames, number: int) -> dict[str, NDArray[Any]]:
        """The columns of numbers, in the order of the features."""
        steps, count = episode.steps, len(paired)
        assert self._contract is not None
        task = self._tasks.setdefault(episode.info.instruction, len(self._tasks))
        last = np.arange(count) == count - 1
        found = {
            layout.STATE: paired.state,
            layout.ACTION: steps.executed[paired.first :],
            layout.REWARD: steps.reward[paired.first :],
            layout.DONE: last,
            layout.SUCCESS: last & bool(episode.info.success),
            layout.LABELLED: np.full(count, episode.info.success is not None),
            layout.OBSERVED: paired.own,
            layout.TIMESTAMP: (np.arange(count) / layout.frames_per_second(self._contract)).astype(np.float32),
            layout.FRAME: np.arange(count, dtype=np.int64),
            layout.EPISODE: np.full(count, number, np.int64),
            layout.INDEX: np.arange(self._total, self._total + count, dtype=np.int64),
            layout.TASK: np.full(count, task, np.int64),
        }
        return {name: array for name, array in found.items() if name in self._features}

    def _coded(self, episode: Episode, paired: Frames) -> dict[str, pa.Array]:
        """Columns of images, of a dataset that has its images in the tables. An image that is held is coded once."""
        if self._images_as != "png":
            return {}
        found = {}
        for camera in episode.info.contract.cameras:
            pixels = episode.calls.images[camera.name]
            coded = {int(call): png(pixels[call]) for call in np.unique(paired.call)}
            name = layout.IMAGES + camera.name
            found[name] = image_column([coded[int(call)] for call in paired.call], name)
        return found

    def _image_stats(self, episode: Episode, paired: Frames) -> dict[str, Stats]:
        found = {}
        for name, whole in self._levels.items():
            levels, pixels = ImageLevels(), episode.calls.images[name.removeprefix(layout.IMAGES)]
            for frame in sampled(len(paired)):
                levels.add(pixels[paired.call[frame]])
            whole.merge(levels)
            found[name] = levels.stats()
        return found

    def _info(self, contract: Contract) -> dict[str, Any]:
        for name, video in self._videos.items():
            self._features[name]["info"] = video.writer.notes()
        return {
            "codebase_version": layout.VERSION,
            "robot_type": contract.robot,
            "total_episodes": len(self._rows),
            "total_frames": self._total,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNK_FILES,
            "data_files_size_in_mb": layout.DATA_MB,
            "video_files_size_in_mb": layout.VIDEO_MB,
            "fps": layout.frames_per_second(contract),
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO if self._videos else None,
            "features": self._features,
        }

    def _about(self, contract: Contract) -> dict[str, Any]:
        changed = f"{CODEC}, crf {QUALITY}: at least {MIN_PSNR_DB:g} dB for images without noise; no density is exact"
        return {
            "contract": json.loads(contract.to_json()),
            "images": HELD if contract.cameras else "none",
            "pixels": changed if self._videos else "the very pixels that the policy saw",
            "statistics": STATEMENT,
            "times": "timestamp is frame_index / fps; the robot's own stamps are step.time_ns of the sidecar",
        }

    def _lines(self) -> list[str]:
        lines = [f"{len(self._rows)} episodes, {self._total} frames, {len(self._tasks)} tasks"]
        lines += [f"{count} episodes left out: {why}" for why, count in self._left_out.items()]
        if self._held:
            lines.append(f"{self._held} frames hold the images of the last policy call before them: {layout.OBSERVED}")
        if self._without_frame:
            lines.append(f"{self._without_frame} steps without an observation before them are no frames")
        if self._unlabelled:
            lines.append(
                f"{self._unlabelled} episodes are unlabelled: {layout.SUCCESS} and {layout.LABELLED} are false"
            )
        if self._videos:
            lines.append(
                "video changes pixels: imported again, PPO can't learn from the policy calls; --images png can"
            )
        return lines


class _DataFiles:
    """Files of frames, each ended when it has its size."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._number, self._path = -1, folder
        self._writer: Any = None
        self.place = dict[str, Any]()
        """of the episode that was added last"""

    def add(self, values: Mapping[str, NDArray[Any]], coded: Mapping[str, pa.Array]) -> None:
        """Append an episode as a row group."""
        if self._writer is None or self._path.stat().st_size >= layout.DATA_MB * MIB:
            self.close()
            self._number += 1
            chunk, file = divmod(self._number, layout.CHUNK_FILES)
            self._path = self._folder / layout.DATA.format(chunk_index=chunk, file_index=file)
            self._writer = frames_writer(self._path, self._schema)
            self.place = {"data/chunk_index": chunk, "data/file_index": file}
        columns = [coded[each.name] if each.name in coded else column(values[each.name], each.type)
                   for each in self._schema]  # fmt: skip
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _VideoFiles:
    """Files of one camera, each ended when it has its size."""

    def __init__(self, folder: Path, name: str, writer: VideoWriter) -> None:
        self._folder, self._name, self.writer = folder, name, writer
        self._number, self._path = -1, folder

    def add(self, name: str, pixels: NDArray[np.uint8], call_F: NDArray[np.int64]) -> dict[str, Any]:
        """Append an episode's frames and return where they are."""
        if self._number < 0 or self._path.stat().st_size >= layout.VIDEO_MB * MIB:
            self.writer.close()
            self._number += 1
            chunk, file = divmod(self._number, layout.CHUNK_FILES)
            self._path = self._folder / layout.VIDEO.format(video_key=name, chunk_index=chunk, file_index=file)
            self.writer.open(self._path)
        chunk, file = divmod(self._number, layout.CHUNK_FILES)
        start_s = self.writer.seconds
        for call in call_F:
            self.writer.add(pixels[call])
        return {
            f"videos/{name}/chunk_index": chunk,
            f"videos/{name}/file_index": file,
            f"videos/{name}/from_timestamp": start_s,
            f"videos/{name}/to_timestamp": self.writer.seconds,
        }

    def close(self) -> None:
        self.writer.close()


def _fault(episode: Episode, paired: Frames) -> str:
    """Why an episode can't be exported; empty: it can."""
    if not len(paired):
        return "without an observation before a step"
    steps = episode.steps
    numbers = (paired.state, steps.executed[paired.first :], steps.reward[paired.first :])
    if not all(np.isfinite(each).all() for each in numbers):
        return "with a state, an action or a reward that is not finite: lerobot's statistics would be spoilt for good"
    return ""
