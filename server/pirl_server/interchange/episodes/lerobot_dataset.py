"""A LeRobotDataset folder as data, v3.0 or v2.1: every table by value, every named file checked before a frame is read.

lerobot itself takes tasks and episodes by position, and asks a hub for what is missing; neither is done here. The
statistics are not read: their quantiles are not those of the data.

Shape letters: F frames of an episode, V entries of a vector.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray
from PIL import Image

from pirl_server.interchange.checkpoints.source_folder import inside, one_line, parse, plain_file, read_object
from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes.lerobot_video import read_segment, segment_digest

OLD_TASKS, OLD_EPISODES = "tasks.jsonl", "episodes.jsonl"
OLD_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
OLD_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_PLACEHOLDER = re.compile(r"\{(chunk_index|file_index|episode_chunk|episode_index|video_key)(:0?\d{1,2}d)?\}")
MAX_SIDE = 8192
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class VideoPart:
    """Where an episode's images of one camera are."""

    path: Path
    start_s: float


@dataclass(frozen=True)
class Entry:
    """Where one episode is."""

    index: int
    length: int
    """frames"""
    data: Path
    videos: Mapping[str, VideoPart] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """An opened dataset."""

    folder: Path
    info: layout.Info
    tasks: Mapping[int, str]
    entries: Sequence[Entry]
    """in order of episode_index"""
    lines: tuple[str, ...] = ()
    """what was wrong with it and mended"""

    def columns(self, entry: Entry, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Columns [F, ...] of an episode's frames in time order.

        Raises ValueError that names the file for a column that is not there, and for frames that are not.
        """
        wanted = list(dict.fromkeys([*names, layout.FRAME]))
        table = self._rows(entry, wanted)
        found = {name: _numbers(table[name], entry.data, name) for name in wanted}
        order = np.argsort(found[layout.FRAME], kind="stable")
        if not np.array_equal(found[layout.FRAME][order], np.arange(entry.length)):
            raise ValueError(
                f"'{entry.data}': episode {entry.index} has {len(order)} frames whose frame_index is not 0 to"
                f" {entry.length - 1}: the dataset is incomplete"
            )
        return {name: array[order] for name, array in found.items()}

    def images(self, entry: Entry, key: str) -> Iterator[Pixels]:
        """Yield an episode's images [height, width, 3] of a key in time order. Raises ValueError."""
        if key in entry.videos:
            part = entry.videos[key]
            yield from read_segment(part.path, part.start_s, entry.length, self.info.fps)
            return
        for number, raw in enumerate(self._coded(entry, key)):
            yield _decoded(raw, f"'{entry.data}': '{key}', episode {entry.index}, frame {number}")

    def image_digest(self, entry: Entry, key: str) -> bytes:
        """The coded images of an episode: other bytes are other images. Nothing is decoded."""
        if key in entry.videos:
            part = entry.videos[key]
            return segment_digest(part.path, part.start_s, entry.length, self.info.fps)
        return b"".join(self._coded(entry, key))

    def _coded(self, entry: Entry, key: str) -> list[bytes]:
        table = self._rows(entry, [key, layout.FRAME])
        order = np.argsort(_numbers(table[layout.FRAME], entry.data, layout.FRAME), kind="stable")
        rows = table[key].to_pylist()
        return [self._bytes(rows[row], entry, key) for row in order]

    def _bytes(self, cell: Any, entry: Entry, key: str) -> bytes:
        if not isinstance(cell, dict):
            raise ValueError(f"'{entry.data}': '{key}' holds {type(cell).__name__}, no images")
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        return inside(self.folder, self.folder / str(cell.get("path"))).read_bytes()

    def _rows(self, entry: Entry, names: Sequence[str]) -> pa.Table:
        mine = read_table(entry.data, [*names, layout.EPISODE], entry.index)
        if len(mine) != entry.length:
            raise ValueError(
                f"'{entry.data}': episode {entry.index} has {len(mine)} frames, the table of episodes says"
                f" {entry.length}: the dataset is incomplete"
            )
        return mine


def read_info(folder: Path) -> layout.Info:
    """info.json. Raises ValueError that names the key at fault, and for a version that is not read here."""
    info = parse(layout.Info, read_object(folder / layout.INFO), f"'{folder / layout.INFO}'")
    if not re.fullmatch(r"v3\.\d+|v2\.1", info.codebase_version):
        raise ValueError(
            f"'{folder / layout.INFO}': codebase_version '{info.codebase_version}' is neither v3.0 nor v2.1: convert it"
            " with lerobot's own scripts first"
        )
    if not (0 < info.fps < 10_000):
        raise ValueError(f"'{folder / layout.INFO}': fps {info.fps} must be above 0")
    return info


def read_tasks(folder: Path, info: layout.Info) -> dict[int, str]:
    """Text by task_index, by value; empty where there is no table. Raises ValueError for an index with two texts."""
    if info.codebase_version == "v2.1":
        path = folder / "meta" / OLD_TASKS
        pairs = [(row["task_index"], row["task"]) for row in _lines(path, ("task_index", "task"))]
    else:
        path = folder / layout.TASKS
        if not path.exists():
            return {}
        table = read_table(path)
        texts = [name for name in table.column_names if pa.types.is_string(table[name].type) or
                 pa.types.is_large_string(table[name].type)]  # fmt: skip
        if layout.TASK not in table.column_names or len(texts) != 1:
            raise ValueError(f"'{path}' has the columns {table.column_names}: a {layout.TASK} and a text are expected")
        pairs = list(zip(table[layout.TASK].to_pylist(), table[texts[0]].to_pylist()))
    found: dict[int, str] = {}
    for index, text in pairs:
        if found.setdefault(index, text) != text:
            raise ValueError(f"'{path}': task_index {index} is both '{found[index]}' and '{text}'")
    return found


def read_table(path: Path, names: Sequence[str] | None = None, episode: int | None = None) -> pa.Table:
    """A parquet file, or some of its columns, or the rows of one episode.

    Raises ValueError that names it, and a column that is not there; UnfinishedError for one that was cut short.
    """
    try:
        # Not ParquetFile and its row groups: asking a damaged file for their statistics ends the whole process.
        file = ds.dataset(path, format="parquet")
        known = file.schema.names
        if names is not None and (missing := [name for name in names if name not in known]):
            raise ValueError(f"'{path}' has no column '{missing[0]}'; there are {', '.join(known)[:500]}")
        rows = None if episode is None else ds.field(layout.EPISODE) == episode
        return file.to_table(columns=None if names is None else list(dict.fromkeys(names)), filter=rows)
    except FileNotFoundError:
        raise ValueError(f"'{path}' is missing: copy the whole dataset") from None
    except (pa.ArrowException, OSError) as error:
        raise UnfinishedError(f"'{path}' can't be read, it was cut short or damaged: {one_line(error)}") from None


class UnfinishedError(ValueError):
    """A parquet file without its end: the recording was ended before it was written."""


def file_at(folder: Path, template: str, what: str, **numbers: int | str) -> Path:
    """The file that a template of info.json names. Raises ValueError unless it is there, inside the folder."""
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest or template.startswith("/"):
        raise ValueError(f"'{folder / layout.INFO}': {what} '{template[:200]}' has an unknown placeholder")
    try:
        name = template.format(**numbers)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"'{folder / layout.INFO}': {what} '{template[:200]}': {one_line(error)}") from None
    return inside(folder, folder / name)


def old_entries(folder: Path, info: layout.Info, video_keys: Sequence[str]) -> list[Entry]:
    """The episodes of v2.1: a file each. Raises ValueError for a file that is not there."""
    data_path = OLD_DATA if info.data_path == layout.DATA else info.data_path
    video_path = OLD_VIDEO if info.video_path in (None, layout.VIDEO) else str(info.video_path)
    found = []
    for row in _lines(folder / "meta" / OLD_EPISODES, ("episode_index", "length")):
        numbers = {"episode_index": row["episode_index"], "episode_chunk": row["episode_index"] // info.chunks_size}
        videos = {
            key: VideoPart(file_at(folder, video_path, "video_path", video_key=key, **numbers), 0.0)
            for key in video_keys
        }
        data = file_at(folder, data_path, "data_path", **numbers)
        found.append(Entry(row["episode_index"], row["length"], data, videos))
    return found


def _lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    try:
        lines = plain_file(path.parent, path.name).read_text(encoding="utf-8").splitlines()
        for line in lines:
            if line.strip():
                row = json.loads(line)
                found.append({key: row[key] for key in keys})
    except (OSError, json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}', line {len(found) + 1} can't be read: {error!r}") from None
    return found


def _numbers(column: pa.ChunkedArray, path: Path, name: str) -> NDArray[Any]:
    """A column of numbers [F] or vectors [F, V]."""
    array = column.combine_chunks()
    if array.null_count:
        raise ValueError(f"'{path}': column '{name}' has {array.null_count} empty cells")
    if pa.types.is_fixed_size_list(array.type) or pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = set(pc.list_value_length(array).to_pylist())
        if len(lengths) > 1:
            raise ValueError(f"'{path}': the vectors of '{name}' have the lengths {sorted(lengths)[:5]}")
        inner = array.flatten()
        if not pa.types.is_primitive(inner.type):
            raise ValueError(f"'{path}': column '{name}' holds {array.type}, no vectors")
        flat: NDArray[Any] = inner.to_numpy(zero_copy_only=False)
        return flat.reshape(len(array), -1)
    if not pa.types.is_primitive(array.type):
        raise ValueError(f"'{path}': column '{name}' holds {array.type}, no numbers")
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _decoded(raw: bytes, where: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"{image.size[0]}x{image.size[1]} pixels")
            if image.mode != "RGB":
                raise ValueError(f"mode '{image.mode}', RGB is expected")
            return np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} can't be read: {one_line(error)}") from None
