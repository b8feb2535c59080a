"""An `Episode` as one Zarr v3 hierarchy in an uncompressed ZIP file, and back; episodes of version 1 are directories.

    call/images/<camera>                         raw: a chunk per call in a shard
    call/images/<camera>/{jpeg,offsets,crc32c}   JPEG: the files one after the other, and where each begins

Each part is checked when it is read (`zarr_archive`): of a table all of it, of images those that are read.
`read_group` reads everything, `EpisodeFile` what is asked for. No more than one block of an array is held in memory
when writing: the columns of a long episode may be `FileRows`, and images `EncodedImages`.

C = policy calls, T = executed steps, S = state.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast, get_args, get_type_hints

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, Observation
from pirl_server.episodes.image_codecs import EncodedImages, ImageArray, ImageCodec
from pirl_server.episodes.schema import SCHEMA_VERSION, Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.zarr_archive import ZarrReader, ZarrWriter
from pirl_server.episodes.zarr_directory import EARLIER_VERSION, DirectoryReader
from pirl_server.episodes.zip_members import ChangedError

Table = TypeVar("Table", Calls, Steps)
Pixels = NDArray[np.uint8]


def write_group(path: Path, episode: Episode) -> None:
    """Write a new file. Raises ValueError when an array does not have its declared dimensions."""
    with path.open("xb") as file, ZarrWriter(file, _attributes(episode)) as writer:
        _write_table(writer, "call", episode.calls)
        for name, images in episode.calls.images.items():
            _write_images(writer, name, images, len(episode.calls.step))
        _write_table(writer, "step", episode.steps)
        if episode.final is not None:
            writer.array("final/state", episode.final.state, ("state",))
            for name, image in episode.final.images.items():
                writer.array(f"final/images/{name}", image, _image_dims(name))


def read_group(path: Path) -> Episode:
    """Read all of what `write_group` wrote, of this version or the first.

    Raises ValueError when its schema version is another one, `zip_members.ChangedError` when it was changed.
    """
    with EpisodeFile(path) as file:
        episode = file.episode()
        images = {name: np.asarray(pixels) for name, pixels in episode.calls.images.items()}
    return dataclasses.replace(episode, calls=dataclasses.replace(episode.calls, images=images))


class Parts(Protocol):
    """Where the arrays of an episode lie."""

    attributes: dict[str, Any]

    def __contains__(self, name: str) -> bool: ...
    def close(self) -> None:
        """Nothing can be read from here on."""

    def group_attributes(self, name: str) -> dict[str, Any] | None:
        """Of a group, None for an array."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an array."""

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array, of any shape."""

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows [stop - start, ...]."""

    def raw_bytes(self, name: str, start: int, stop: int) -> bytes:
        """Return bytes of a flat array, not checked."""


class EpisodeFile:
    """A stored episode that is read in parts. Any thread; holds one file descriptor until it is closed or let go.

    What its methods raise: KeyError for a part that is not there, ChangedError for one that was changed, OSError.
    """

    def __init__(self, path: Path) -> None:
        """Read what is said of it. Raises ValueError for another schema version, ChangedError, OSError."""
        self._parts: Parts = DirectoryReader(path) if path.is_dir() else ZarrReader(path)
        version = self._parts.attributes["schema_version"]
        if version != (EARLIER_VERSION if path.is_dir() else SCHEMA_VERSION):
            self.close()
            raise ValueError(f"{path}: schema version {version}, this reader knows {EARLIER_VERSION}, {SCHEMA_VERSION}")
        self.info = _info(self._parts.attributes)

    def __enter__(self) -> EpisodeFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing can be read from here on, nor from the images of its episodes."""
        self._parts.close()

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of a table, such as `step/reward` [T] or `call/state` [C, S]."""
        return self._parts.read(name)

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Return rows [stop - start, ...] of a column, of which all is read and checked."""
        return self._parts.rows(name, start, stop)

    def steps(self) -> Steps:
        """Return all of the steps."""
        return Steps(**self._table("step", Steps))

    def images(self, camera: str) -> ImageArray:
        """Return a camera's images [C, height, width, 3]: read, checked and decoded when they are indexed."""
        name = f"call/images/{camera}"
        if (attributes := self._parts.group_attributes(name)) is None:
            return ImageArray(self._parts.shape(name), lambda start, stop: self._parts.rows(name, start, stop))
        codec = ImageCodec.parse(f"{attributes['codec']}:{attributes['quality']}")
        offsets, checks = self._parts.read(f"{name}/offsets"), self._parts.read(f"{name}/crc32c")
        shape = (len(checks), attributes["height"], attributes["width"], 3)

        def files(start: int, stop: int) -> bytes:
            data = self._parts.raw_bytes(f"{name}/jpeg", int(offsets[start]), int(offsets[stop]))
            for row in range(start, stop):
                own = data[offsets[row] - offsets[start] : offsets[row + 1] - offsets[start]]
                if google_crc32c.value(own) != checks[row]:
                    raise ChangedError(f"image {row} of camera '{camera}' was changed after publishing (CRC-32C)")
            return data

        return EncodedImages(shape, codec, np.diff(offsets), files)

    def episode(self) -> Episode:
        """Return it with its tables in memory; images are read when they are indexed."""
        cameras = [camera.name for camera in self.info.contract.cameras]
        images = {name: cast("Pixels", self.images(name)) for name in cameras}
        calls = Calls(images=images, **self._table("call", Calls))
        return Episode(self.info, calls, self.steps(), self._final(cameras))

    def _table(self, prefix: str, table: type[Table]) -> dict[str, NDArray[Any]]:
        return {name: self._parts.read(f"{prefix}/{name}") for name in _columns(table)}

    def _final(self, cameras: list[str]) -> Observation | None:
        if "final" not in self._parts:
            return None
        images = {name: self._parts.read(f"final/images/{name}") for name in cameras}
        return Observation(images, self._parts.read("final/state"), self.info.instruction, self.info.robot_id)


def read_step_columns(path: Path, *names: str) -> list[NDArray[Any]]:
    """Read single columns [T, ...] of the steps of a group: small, without images.

    Raises ValueError or KeyError for a column that is not there.
    """
    with EpisodeFile(path) as file:
        return [file.column(f"step/{name}") for name in names]


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
            columns[name] = (np.dtype(_scalar(get_args(hint)[0])), tuple(hint.__metadata__[0].split()))
    return columns


def _scalar(hint: Any) -> type[np.generic]:
    """Return the number type of an `NDArray`, whose arguments lie deeper in numpy before 2.5 than since."""
    if isinstance(hint, type) and issubclass(hint, np.generic):
        return hint
    return next(found for each in reversed(get_args(hint)) if (found := _scalar(each)))


def _write_table(writer: ZarrWriter, prefix: str, table: Calls | Steps) -> None:
    sizes: dict[str, int] = {}
    for name, (dtype, dims) in _columns(type(table)).items():
        values = getattr(table, name)
        if values.dtype != dtype or values.ndim != len(dims):
            raise ValueError(f"{prefix}/{name}: {values.dtype} {values.shape} is not {dtype} ({', '.join(dims)})")
        for dim, size in zip(dims, values.shape):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{prefix}/{name}: '{dim}' is {size} here and {sizes[dim]} elsewhere")
        writer.array(f"{prefix}/{name}", values, dims)


def _image_dims(camera: str) -> tuple[str, str, str]:
    """Names of its axes: its own ones, since cameras of a robot differ in size."""
    return f"{camera}_height", f"{camera}_width", "channel"


def _write_images(writer: ZarrWriter, camera: str, images: Any, calls: int) -> None:
    name = f"call/images/{camera}"
    if len(images) != calls:
        raise ValueError(f"{name}: 'call' is {len(images)} here and {calls} elsewhere")
    if not isinstance(images, EncodedImages):
        writer.array(name, images, ("call", *_image_dims(camera)), sharded=True)
        return
    _, height, width, _ = images.shape
    codec = {"codec": images.codec.name, "quality": images.codec.quality, "height": height, "width": width}
    writer.group(name, codec)
    offsets = np.concatenate([[0], np.cumsum(images.sizes)]).astype(np.int64)
    writer.array(f"{name}/offsets", offsets, (f"{camera}_bound",))
    writer.array(f"{name}/jpeg", cast("Pixels", _Bytes(images, offsets)), (f"{camera}_byte",))
    checks = [google_crc32c.value(images.files(row, row + 1)) for row in range(calls)]
    writer.array(f"{name}/crc32c", np.array(checks, np.uint32), ("call",))


class _Bytes:
    """The files of all images as one array of bytes, of which slices are read."""

    ndim, dtype = 1, np.dtype(np.uint8)

    def __init__(self, images: EncodedImages, offsets: NDArray[np.int64]) -> None:
        self._images, self._offsets = images, offsets
        self.shape = (int(offsets[-1]),)

    def __getitem__(self, span: slice) -> Pixels:
        start, stop, _ = span.indices(self.shape[0])
        first, last = np.searchsorted(self._offsets, [start, stop - 1], side="right").tolist()
        begin = int(self._offsets[first - 1])
        return np.frombuffer(self._images.files(first - 1, last), np.uint8)[start - begin : stop - begin]
