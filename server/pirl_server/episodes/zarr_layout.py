"""An `Episode` as a Zarr v3 group and back. Plain `zarr.open_group(path, mode="r")` reads it.

Arrays are written once, each in one uncompressed file up to 32 MiB and in several of equal length beyond: lossless
codecs win about a tenth on camera noise and cost most of the time. Images keep one chunk per call inside a file, so
that a single image can be read. No more than one such file is held in memory: the columns of a long episode may be
`FileRows`. T = executed steps.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np
import zarr
from numpy.typing import NDArray

from pirl_contract import Contract, Observation
from pirl_server.episodes.schema import SCHEMA_VERSION, Calls, Episode, EpisodeInfo, Images, Steps

BLOCK_BYTES = 32 * 2**20
"""most of an array that is written to one file, and held in memory for it"""
Table = TypeVar("Table", Calls, Steps)


def write_group(path: Path, episode: Episode) -> None:
    """Write the group to a new directory. Raises ValueError when an array does not have its declared dimensions."""
    group = zarr.create_group(path, attributes=_attributes(episode))
    _write_table(group, "call", episode.calls)
    _write_images(group, "call/images", episode.calls.images)
    _write_table(group, "step", episode.steps)
    if episode.final is not None:
        _write_array(group, "final/state", episode.final.state, ("state",))
        for name, image in episode.final.images.items():
            _write_array(group, f"final/images/{name}", image, ("height", "width", "channel"))


def read_group(path: Path) -> Episode:
    """Read a group written by `write_group`. Raises ValueError when its schema version is another one."""
    group = zarr.open_group(path, mode="r")
    attributes = dict(group.attrs)
    if attributes["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema version {attributes['schema_version']}, this reader knows {SCHEMA_VERSION}")
    info = _info(attributes)
    cameras = [camera.name for camera in info.contract.cameras]
    images = {name: _read(group, f"call/images/{name}") for name in cameras}
    calls = Calls(images=images, **_read_table(group, "call", Calls))
    return Episode(info, calls, Steps(**_read_table(group, "step", Steps)), _final(group, info, cameras))


def _attributes(episode: Episode) -> dict[str, Any]:
    info = {key.name: getattr(episode.info, key.name) for key in dataclasses.fields(EpisodeInfo)}
    nodes, horizon = episode.calls.chain.shape[1:3]
    return info | {
        "schema_version": SCHEMA_VERSION,
        "contract": episode.info.contract.to_json(),
        "contract_hash": episode.info.contract.hash,
        "policy_versions": list(episode.info.policy_versions),
        "metadata": dict(episode.info.metadata),
        "sampler": episode.sampler,
        "denoise_steps": nodes - 1,
        "horizon": horizon,
    }


def _info(attributes: dict[str, Any]) -> EpisodeInfo:
    # Written before dry runs were marked: unknown, and most were none.
    attributes = {"dry_run": False} | attributes
    values = {key.name: attributes[key.name] for key in dataclasses.fields(EpisodeInfo)}
    values["contract"] = Contract.from_json(values["contract"])
    values["policy_versions"] = tuple(values["policy_versions"])
    return EpisodeInfo(**values)


def _columns(table: type[Calls] | type[Steps]) -> dict[str, tuple[np.dtype[Any], tuple[str, ...]]]:
    """Return name -> (dtype, dimension names) as the annotations of the table declare them."""
    columns = {}
    for name, hint in get_type_hints(table, include_extras=True).items():
        if hasattr(hint, "__metadata__"):
            array = get_args(hint)[0]
            columns[name] = (np.dtype(get_args(get_args(array)[1])[0]), tuple(hint.__metadata__[0].split()))
    return columns


def _write_table(group: zarr.Group, prefix: str, table: Calls | Steps) -> None:
    sizes: dict[str, int] = {}
    for name, (dtype, dims) in _columns(type(table)).items():
        values = getattr(table, name)
        if values.dtype != dtype or values.ndim != len(dims):
            raise ValueError(f"{prefix}/{name}: {values.dtype} {values.shape} is not {dtype} ({', '.join(dims)})")
        for dim, size in zip(dims, values.shape):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{prefix}/{name}: '{dim}' is {size} here and {sizes[dim]} elsewhere")
        _write_array(group, f"{prefix}/{name}", values, dims)


def _write_array(group: zarr.Group, name: str, values: NDArray[Any], dims: tuple[str, ...]) -> None:
    rows = _rows_of_a_file(values)
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(rows, *(max(1, size) for size in values.shape[1:])),
        compressors=None,
        dimension_names=dims,
    )
    _fill(array, values, rows)


def _write_images(group: zarr.Group, prefix: str, images: Images) -> None:
    for name, pixels in images.items():
        rows = _rows_of_a_file(pixels)
        array = group.create_array(
            f"{prefix}/{name}",
            shape=pixels.shape,
            dtype=pixels.dtype,
            chunks=(1, *pixels.shape[1:]),
            shards=(rows, *pixels.shape[1:]),
            compressors=None,
            dimension_names=("call", "height", "width", "channel"),
        )
        _fill(array, pixels, rows)


def _rows_of_a_file(values: NDArray[Any]) -> int:
    """As many as fit, and as many in each: a chunk at the edge is stored in full length."""
    count = max(1, int(values.shape[0]))
    size = int(np.prod(values.shape, dtype=np.int64)) * values.dtype.itemsize
    files = min(count, max(1, -(-size // BLOCK_BYTES)))
    return -(-count // files)


def _fill(array: zarr.Array[Any], values: NDArray[Any], rows: int) -> None:
    for start in range(0, values.shape[0], rows):
        array[start : start + rows] = values[start : start + rows]


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise ValueError(f"{group.store_path}: '{name}' is not an array")
    return np.asarray(found[...])


def _read_table(group: zarr.Group, prefix: str, table: type[Table]) -> dict[str, NDArray[Any]]:
    return {name: _read(group, f"{prefix}/{name}") for name in _columns(table)}


def _final(group: zarr.Group, info: EpisodeInfo, cameras: list[str]) -> Observation | None:
    if "final" not in group:
        return None
    images = {name: _read(group, f"final/images/{name}") for name in cameras}
    return Observation(images, _read(group, "final/state"), info.instruction, info.robot_id)


def read_step_columns(path: Path, *names: str) -> list[NDArray[Any]]:
    """Read single columns [T, ...] of the steps of a group: small, without images.

    Raises ValueError or KeyError for a column that is not there.
    """
    group = zarr.open_group(path, mode="r")
    return [_read(group, f"step/{name}") for name in names]
