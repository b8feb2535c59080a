"""How episodes are often stored: HDF5, a growing Zarr buffer (Diffusion Policy), parquet with video (LeRobotDataset).

Each forces what it wrote to the disk, as an acknowledged episode needs.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from scene import CAMERAS, FPS, Size

TABLES = ("state", "action")


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Hdf5:
    """A file for each episode, an uncompressed chunk for each image; a Fletcher-32 of each chunk."""

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder = folder

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        """Nothing."""

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        path = self._folder / f"{number}.h5"
        with h5py.File(path, "w") as file:
            for name in TABLES:
                file.create_dataset(name, data=data[name])
            for name in CAMERAS:
                file.create_dataset(name, data=data[name], chunks=(1, *data[name].shape[1:]), fletcher32=True)
        sync(path)
        sync(self._folder)

    def seal(self) -> None:
        self._files = [h5py.File(self._folder / f"{n}.h5") for n in range(len(list(self._folder.glob("*.h5"))))]

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        file = self._files[number]
        file["state"][start:stop]
        return np.concatenate([file[name][start:stop] for name in CAMERAS])

    def whole(self, number: int) -> None:
        for name in (*TABLES, *CAMERAS):
            self._files[number][name][...]


class ZarrBuffer:
    """Arrays of all episodes, one after the other, that grow: chunks of about 2 MB, LZ4."""

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder, self._steps = folder, size.steps
        self._group = zarr.create_group(folder / "buffer.zarr")
        rows = max(1, 2**21 // (size.side**2 * 3))
        codec = zarr.codecs.BloscCodec(cname="lz4", clevel=5)
        image = (size.side, size.side, 3)
        for name in CAMERAS:
            self._group.create_array(
                name, shape=(0, *image), dtype="uint8", chunks=(rows, *image), compressors=codec
            )  # fmt: skip

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        """Nothing."""

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        for name, values in data.items():
            if name not in self._group:
                row = values.shape[1:]
                self._group.create_array(name, shape=(0, *row), dtype=values.dtype, chunks=(1000, *row))
            self._group[name].append(values)
        for path in self._folder.rglob("*"):
            sync(path)

    def seal(self) -> None:
        """Nothing."""

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        first = number * self._steps
        self._group["state"][first + start : first + stop]
        return np.concatenate([self._group[name][first + start : first + stop] for name in CAMERAS])

    def whole(self, number: int) -> None:
        first = number * self._steps
        for name in (*TABLES, *CAMERAS):
            self._group[name][first : first + self._steps]


class ParquetVideo:
    """A parquet file and a video for each camera and episode, AV1 with a key image every second one."""

    def __init__(self, folder: Path, size: Size) -> None:
        self._folder = folder

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        """Nothing."""

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        table = pa.table({name: list(data[name]) for name in TABLES})
        pq.write_table(table, self._folder / f"{number}.parquet")
        for name in CAMERAS:
            self._encode(self._folder / f"{number}-{name}.mp4", data[name])
        for path in self._folder.glob(f"{number}[.-]*"):
            sync(path)
        sync(self._folder)

    def _encode(self, path: Path, images: np.ndarray) -> None:
        with av.open(str(path), "w") as container:
            options = {"preset": "12", "crf": "30", "g": "2"}
            stream = container.add_stream("libsvtav1", rate=FPS, options=options)
            stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    def seal(self) -> None:
        """Nothing."""

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        pq.read_table(self._folder / f"{number}.parquet").slice(start, stop - start)
        return np.concatenate([self._decode(number, name, start, stop) for name in CAMERAS])

    def _decode(self, number: int, camera: str, start: int, stop: int) -> np.ndarray:
        found = list[np.ndarray]()
        with av.open(str(self._folder / f"{number}-{camera}.mp4")) as container:
            stream = container.streams.video[0]
            container.seek(round(start / FPS / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                at = round(frame.pts * stream.time_base * FPS)
                if at >= start:
                    found.append(frame.to_ndarray(format="rgb24"))
                if at >= stop - 1:
                    break
        return np.stack(found)

    def whole(self, number: int) -> None:
        rows = pq.read_table(self._folder / f"{number}.parquet").num_rows
        self.images(number, 0, rows)


def make(name: str, folder: Path, size: Size) -> Hdf5 | ZarrBuffer | ParquetVideo:
    return {"hdf5": Hdf5, "zarr buffer": ZarrBuffer, "parquet + video": ParquetVideo}[name](folder, size)
