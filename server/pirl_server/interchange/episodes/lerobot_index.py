"""Where the episodes of a LeRobotDataset v3.0 are: its table of episodes, or one rebuilt from the files themselves.

A recording that ended without `finalize` has data, videos and an info.json that counts its episodes, and no table of
them; lerobot then looks for a hub. What the table would say follows from the frames: which episode each is of, and how
many images each video file has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes.lerobot_dataset import (
    Dataset,
    Entry,
    UnfinishedError,
    VideoPart,
    file_at,
    old_entries,
    read_info,
    read_table,
    read_tasks,
)
from pirl_server.interchange.episodes.lerobot_video import count_frames


def open_dataset(folder: Path, video_keys_left_out: Sequence[str] = ()) -> Dataset:
    """Open a dataset and check that every file it names is there. Raises ValueError that names the file and the fix."""
    info = read_info(folder)
    keys = [key for key, each in info.features.items() if each.dtype == "video" and key not in video_keys_left_out]
    if info.codebase_version == "v2.1":
        found, lines = old_entries(folder, info, keys), tuple[str, ...]()
    else:
        found, lines = _entries(folder, info, keys)
    entries = sorted(found, key=lambda each: each.index)
    numbers = [each.index for each in entries]
    if len(set(numbers)) != len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"'{folder}': episode_index {twice} is in the table of episodes twice")
    if not entries:
        raise ValueError(f"'{folder}' has no episodes{''.join(f'; {line}' for line in lines)}")
    return Dataset(folder, info, read_tasks(folder, info), entries, lines)


def _entries(folder: Path, info: layout.Info, keys: Sequence[str]) -> tuple[list[Entry], tuple[str, ...]]:
    rows, unreadable = _table(folder, keys)
    if len(rows) >= info.total_episodes and not unreadable:
        return [_entry(folder, info, row, keys) for row in rows], ()
    entries, lost = _rebuilt(folder, info, keys)
    lines = [
        f"the table of episodes has {len(rows)} of {info.total_episodes}: the recording ended without finalize();"
        f" {len(entries)} episodes were found in the data",
        *lost,
    ]
    return entries, tuple(lines)


def _table(folder: Path, keys: Sequence[str]) -> tuple[list[dict[str, Any]], bool]:
    """Rows of meta/episodes, and whether a part of it was cut short."""
    names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    parts = ("chunk_index", "file_index", "from_timestamp")
    names += [f"videos/{key}/{part}" for key in keys for part in parts]
    rows, unreadable = list[dict[str, Any]](), False
    for path in sorted((folder / layout.EPISODES_FOLDER).glob("*/*.parquet")):
        try:
            known = read_table(path)
        except UnfinishedError:
            unreadable = True
            continue
        if "length" not in known.column_names:  # lerobot's readers need it not
            names = [name for name in names if name != "length"]
        if missing := [name for name in names if name not in known.column_names]:
            raise ValueError(f"'{path}' has no column '{missing[0]}': it is no table of episodes of v3.0")
        rows += known.select(names).to_pylist()
    return rows, unreadable


def _entry(folder: Path, info: layout.Info, row: Mapping[str, Any], keys: Sequence[str]) -> Entry:
    if info.video_path is None and keys:
        raise ValueError(f"'{folder / layout.INFO}': '{keys[0]}' is a video and there is no video_path")
    data = file_at(
        folder, info.data_path, "data_path", chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
    )
    videos = {}
    for key in keys:
        chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
        path = file_at(
            folder, str(info.video_path), "video_path", video_key=key, chunk_index=int(chunk), file_index=int(file)
        )
        videos[key] = VideoPart(path, float(row[f"videos/{key}/from_timestamp"]))
    length = row["length"] if "length" in row else _length(data, row["episode_index"])
    return Entry(int(row["episode_index"]), int(length), data, videos)


def _length(data: Path, index: int) -> int:
    return int(pc.sum(pc.equal(read_table(data, [layout.EPISODE])[layout.EPISODE], index)).as_py() or 0)


def _rebuilt(folder: Path, info: layout.Info, keys: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """The episodes of the data files that can be read, each with its place in the videos, and what was lost."""
    found, lost = dict[int, tuple[int, Path]](), list[str]()
    for path in sorted((folder / layout.DATA_FOLDER).glob("*/*.parquet")):
        try:
            column = read_table(path, [layout.EPISODE])[layout.EPISODE]
        except UnfinishedError as error:
            lost.append(f"{error}; its episodes are lost, the recording was killed")
            continue
        numbers, counts = np.unique(column.to_numpy(), return_counts=True)
        found |= {int(number): (int(count), path) for number, count in zip(numbers, counts)}
    order = sorted(found)
    if keys and order != list(range(len(order))):
        raise ValueError(
            f"'{folder}': the episodes {order[:5]}... of the data do not begin at 0 without a gap, so that their images"
            " can't be found in the videos: leave those out with --camera KEY=-"
        )
    places = {key: _places(folder, key, [found[number][0] for number in order], info.fps) for key in keys}
    return [
        Entry(number, found[number][0], found[number][1], {key: places[key][at] for key in keys})
        for at, number in enumerate(order)
    ], lost


def _places(folder: Path, key: str, lengths: Sequence[int], fps: float) -> list[VideoPart]:
    """Where each episode begins: the files hold them in order, each whole in one."""
    files = sorted((folder / "videos" / key).glob("*/*.mp4"))
    places, left, at = list[VideoPart](), 0, -1
    done = 0
    for number, length in enumerate(lengths):
        if left == 0:
            at += 1
            if at == len(files):
                raise ValueError(f"'{folder / 'videos' / key}': there is no video of episode {number} and those after")
            left, done = count_frames(files[at]), 0
        if length > left:
            raise ValueError(
                f"'{files[at]}' has {left} images left for episode {number}, which has {length} frames: the video was"
                f" cut short; leave it out with --camera {key.removeprefix(layout.IMAGES)}=-"
            )
        places.append(VideoPart(files[at], done / fps))
        done, left = done + length, left - length
    return places
