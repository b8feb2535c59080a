"""The parquet tables of a LeRobotDataset, written: frames, episodes, tasks. Types are those that lerobot writes.

Shape letters: F frames of an episode, V entries of a vector.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pirl_server.interchange.episodes.lerobot_layout import TASK, TASKS

DICTIONARY_BYTES = 64 * 2**20
"""of distinct values that a row group keeps once: frames between two observations repeat an image"""
_TYPES = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def data_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Of the files of frames; videos are not in them."""
    fields = []
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        if feature["dtype"] == "image":
            fields.append(pa.field(name, _IMAGE))
        elif feature["shape"] == [1]:
            fields.append(pa.field(name, _TYPES[feature["dtype"]]))
        else:
            fields.append(pa.field(name, pa.list_(_TYPES[feature["dtype"]], feature["shape"][0])))
    return pa.schema(fields)


def column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Numbers [F] or [F, V] as a column of that type."""
    if pa.types.is_fixed_size_list(kind):
        flat = pa.array(np.ascontiguousarray(values).ravel(), type=kind.value_type)
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    return pa.array(values.reshape(len(values)), type=kind)


def image_column(coded: Sequence[bytes], name: str) -> pa.Array:
    """Coded images as a column [F], as lerobot embeds them."""
    paths = [f"{name}-{number:06d}.png" for number in range(len(coded))]
    return pa.array([{"bytes": raw, "path": path} for raw, path in zip(coded, paths)], type=_IMAGE)


def png(image: NDArray[np.uint8]) -> bytes:
    """The image [height, width, 3], without loss."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def frames_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A new file of frames; each table that is written becomes a row group: one an episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(
        path, schema=schema, compression="snappy", use_dictionary=True, dictionary_pagesize_limit=DICTIONARY_BYTES
    )


def write_episodes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The table of episodes, in order of episode_index: lerobot takes the row at that position."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.Table.from_pydict(columns), path, compression="snappy")


def write_tasks(folder: Path, tasks: Sequence[str]) -> None:
    """The table of tasks, in order of task_index without gaps: lerobot takes the row at that position.

    The texts must be the index of the pandas table, not a column: lerobot would give an item its row number as task.
    """
    said = {
        "index_columns": ["task"],
        "column_indexes": [_described(None)],
        "columns": [_described(TASK, "int64"), _described("task", "unicode")],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({TASK: pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    table = table.replace_schema_metadata({b"pandas": json.dumps(said).encode()})
    (folder / TASKS).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / TASKS)


def _described(name: str | None, kind: str = "unicode") -> dict[str, Any]:
    numpy_type = "int64" if kind == "int64" else "object"
    return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
