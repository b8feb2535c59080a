"""What one open episode holds: its policy calls and its executed steps.

Calls: the newest in memory, older ones in plain files, one per column. `add` never touches the disk; another thread
calls `spill`, which writes the oldest calls to the files and lets them go. Steps take a few hundred bytes each, up to a
fixed number.
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pirl_contract import ActionChunk, Alteration, Contract, Observation, StepOutcome
from pirl_server.episodes.file_rows import FileRows
from pirl_server.episodes.image_codecs import EncodedImages, ImageCodec
from pirl_server.episodes.schema import Calls, Steps
from pirl_server.policy.served_policy import PolicySample
from pirl_server.serving.camera_codecs import NOT_ENCODED, Encoded
from pirl_server.serving.errors import BusyError

ROWS_AT_ONCE = 16
"""calls that are written together: what is added meanwhile waits in memory"""
_CALL_BYTES = 512
"""of what stays in memory for each call: its facts and its chunk id"""
_FACTS = np.dtype(
    [
        ("capture_time_ns", "<i8"),
        ("sde_index", "<i4"),
        ("std", "<f4"),
        ("noise_level", "<f4"),
        ("value", "<f4"),
        ("seed", "<u8"),
        ("policy_version", "<i4"),
        ("latency_ms", "<f4"),
        ("altered", "<i4"),
    ]
)
Row = Mapping[str, NDArray[Any]]
_Column = tuple[np.dtype[Any], tuple[int, ...]]
_ANY = (-1,)
"""shape of a column whose rows differ in length: encoded images"""


class LoggedCalls:
    """Every method may be called from any thread; `folder` is made when the first call is written to it."""

    def __init__(self, folder: Path, cameras: Sequence[str]) -> None:
        self._folder, self._cameras = folder, tuple(cameras)
        self._lock = threading.Lock()
        self._writing = threading.RLock()  # one at a time; taken before the other
        self._rows: deque[Row] = deque()
        self._columns: dict[str, _Column] = {}
        self._codecs: dict[str, tuple[ImageCodec, tuple[int, ...]]] = {}
        self._sizes: dict[str, list[int]] = {}
        """of all rows of the columns whose rows differ"""
        self._ends: dict[str, int] = {}
        """where the files of these columns end"""
        self._spilled, self._row_bytes = 0, 0
        self.nbytes = 0
        """memory that they take, about"""
        self.nbytes_on_disk = 0
        """what was written to the files"""
        self._facts = bytearray()
        self._versions: dict[str, int] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._facts) // _FACTS.itemsize

    @property
    def versions(self) -> tuple[str, ...]:
        """The policy versions, in order of appearance."""
        return tuple(self._versions)

    def add(
        self,
        observation: Observation,
        sample: PolicySample,
        chunk: ActionChunk,
        latency_ms: float,
        encoded: Encoded = NOT_ENCODED,
    ) -> None:
        """Remember one answered request. Raises ValueError when its arrays have another shape than the first one's."""
        small = {"state": observation.state, "chunk": chunk.actions, "chain": sample.chain, "log_prob": sample.log_prob}
        # rows of a batch are views of all of it
        row = {name: np.array(values, order="C") for name, values in small.items()}
        columns, codecs = {name: (values.dtype, values.shape) for name, values in row.items()}, {}
        for number, camera in enumerate(self._cameras):
            name, pixels = _image(number), observation.images[camera]
            if (stored := encoded.get(camera)) is None:
                row[name], columns[name] = pixels, (pixels.dtype, pixels.shape)
            else:
                row[name], columns[name] = np.frombuffer(stored.data, np.uint8), (np.dtype(np.uint8), _ANY)
                codecs[name] = stored.codec, pixels.shape
        with self._lock:
            if self._columns and (columns, codecs) != (self._columns, self._codecs):
                raise ValueError(f"a call of {columns} does not fit an episode of {self._columns}")
            self._columns, self._codecs = columns, codecs
            version = self._versions.setdefault(chunk.policy_version, len(self._versions))
            facts = (
                observation.capture_time_ns, sample.sde_index, sample.std, sample.noise_level, sample.value,
                sample.seed, version, latency_ms, sample.altered,
            )  # fmt: skip
            self._facts += np.array(facts, _FACTS).tobytes()
            self._rows.append(row)
            for name in codecs:
                self._sizes.setdefault(name, []).append(row[name].nbytes)
            self._row_bytes += _bytes(row)
            self._weigh()

    def spill(self, keep_bytes: int) -> None:
        """Write the oldest calls to the files until the rest takes no more than this.

        Raises OSError: what could not be written stays in memory.
        """
        with self._writing:
            while not self._closed and (rows := self._surplus(keep_bytes)):
                self._append(rows)
                with self._lock:
                    for row in rows:
                        self._rows.popleft()
                        self._row_bytes -= _bytes(row)
                        self.nbytes_on_disk += _bytes(row)
                        for name in self._codecs:
                            self._ends[name] = self._ends.get(name, 0) + row[name].nbytes
                    self._spilled += len(rows)
                    self._weigh()

    def table(self, first_step: NDArray[np.int32]) -> Calls:
        """Return all calls; columns that were written to files are `FileRows`. Raises OSError.

        Encoded images are `EncodedImages`. Nothing may be added meanwhile. `first_step` [C] of C calls.
        """
        with self._writing:
            if self._spilled:
                self.spill(0)
            columns: dict[str, Any] = {name: self._column(name) for name in self._columns}
        images = {name: columns.pop(_image(n)) for n, name in enumerate(self._cameras)}
        facts = self._all_facts()
        columns |= {name: np.ascontiguousarray(facts[name]) for name in _FACTS.names or () if name != "altered"}
        return Calls(images=images, step=first_step, **columns)

    def altered(self) -> NDArray[np.int32]:
        """Return, for each call, how many of its leading actions were not drawn by the policy alone.

        Shape [C] of C calls.
        """
        return np.ascontiguousarray(self._all_facts()["altered"])

    def close(self) -> None:
        """Let everything go, the files too."""
        with self._writing:
            self._closed = True
            with self._lock:
                self._rows.clear()
                self._row_bytes = 0
                self._weigh()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _weigh(self) -> None:
        self.nbytes = self._row_bytes + len(self) * _CALL_BYTES

    def _all_facts(self) -> NDArray[Any]:
        with self._lock:
            return np.frombuffer(bytes(self._facts), _FACTS)

    def _surplus(self, keep_bytes: int) -> list[Row]:
        """Return the oldest rows that are too many, no more than are written at once."""
        with self._lock:
            rows, left = list[Row](), self._row_bytes
            for row in islice(self._rows, ROWS_AT_ONCE):
                if left <= keep_bytes:
                    break
                rows.append(row)
                left -= _bytes(row)
            return rows

    def _append(self, rows: Sequence[Row]) -> None:
        """Write whole rows or none: whatever a failed attempt has left behind is overwritten by the next one."""
        self._folder.mkdir(exist_ok=True)
        for name, (dtype, shape) in self._columns.items():
            path = self._folder / f"{name}.bin"
            end = self._ends.get(name, 0)
            if shape != _ANY:
                end = self._spilled * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            with path.open("r+b" if self._spilled else "wb", buffering=0) as file:
                file.seek(end)
                for row in rows:
                    _write(file, np.ascontiguousarray(row[name]).reshape(-1).view(np.uint8).data)

    def _column(self, name: str) -> NDArray[Any]:
        if name in self._codecs:
            return cast("NDArray[Any]", self._encoded(name))  # the store's writer knows it
        if not self._spilled:
            with self._lock:
                return np.stack([row[name] for row in self._rows])
        dtype, shape = self._columns[name]
        rows = FileRows(self._folder / f"{name}.bin", dtype, (self._spilled, *shape))
        return cast("NDArray[Any]", rows)  # the store's writer reads slices only

    def _encoded(self, name: str) -> EncodedImages:
        codec, (height, width, _) = self._codecs[name]
        if not self._spilled:
            with self._lock:
                return EncodedImages.of([row[name].data for row in self._rows], height, width, codec)
        sizes = np.array(self._sizes[name], np.int64)
        bounds = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        rows = FileRows(self._folder / f"{name}.bin", np.dtype(np.uint8), (bounds[-1],))
        shape = (self._spilled, height, width, 3)
        return EncodedImages(shape, codec, sizes, lambda start, stop: rows[bounds[start] : bounds[stop]].tobytes())


def _bytes(row: Row) -> int:
    return sum(values.nbytes for values in row.values())


def _image(number: int) -> str:
    """Files are not named after cameras: a contract may call them anything."""
    return f"image-{number}"


def _write(file: FileIO, data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


_KEY = struct.Struct("<iiq")
_KEY_BYTES = 128
"""of one key in the set of those that were seen"""


class LoggedSteps:
    """Steps in the order of their reports. Not thread-safe: the episode's lock is held around every call."""

    def __init__(self, contract: Contract, most: int) -> None:
        self._most = most
        self._row = np.dtype(
            [
                ("executed", "<f4", (contract.action_dim,)),
                ("state", "<f4", (contract.state_dim,)),
                ("reward", "<f4"),
                ("alterations", "<u4"),
                ("source", "u1"),
                ("call", "<i4"),
                ("index", "<i4"),
                ("time_ns", "<i8"),
            ]
        )
        self._rows = bytearray()
        self._seen: set[bytes] = set()
        self.nbytes = 0
        """memory that they take, about"""

    def __len__(self) -> int:
        return len(self._rows) // self._row.itemsize

    def add(self, outcomes: Sequence[tuple[int, StepOutcome]], cut: bool = False) -> None:
        """Remember steps, each with its call or -1; one that was reported before, by a repeated request, counts once.

        When they are too many none is taken, BusyError; with `cut` as many as there is room for.
        """
        new, keys = [], set[bytes]()
        for call, step in outcomes:
            # a step driven without a chunk or a clock has no identity: it cannot be distinguished from a repetition
            if step.chunk_id or step.time_ns:
                key = _KEY.pack(call, step.index, step.time_ns)
                if key in self._seen or key in keys:
                    continue
                keys.add(key)
            new.append((call, step))
        if (room := self._most - len(self)) < len(new):
            if not cut:
                raise BusyError(f"the episode has {len(self)} steps, and at most {self._most}: end the episode", 0.0)
            new = new[:room]
        for call, step in new:
            self._rows += self._packed(call, step)
        self._seen |= keys
        self.nbytes = len(self._rows) + _KEY_BYTES * len(self._seen)

    def table(self, altered: NDArray[np.int32], terminated: bool) -> Steps:
        """Return all steps; of call c the first `altered[c]` actions were not drawn by the policy alone.

        `altered` [C] of C calls.
        """
        rows = np.frombuffer(bytes(self._rows), self._row)
        call, index = rows["call"], rows["index"]
        continued = (call >= 0) & (index < altered[call])
        bits = np.where(continued, np.uint32(Alteration.CONTINUED), np.uint32(0))
        last = np.arange(len(rows)) == len(rows) - 1
        return Steps(
            executed=np.ascontiguousarray(rows["executed"]),
            state=np.ascontiguousarray(rows["state"]),
            reward=np.ascontiguousarray(rows["reward"]),
            alterations=np.bitwise_or(rows["alterations"], bits),
            source=np.ascontiguousarray(rows["source"]),
            call=np.ascontiguousarray(call),
            index=np.ascontiguousarray(index),
            time_ns=np.ascontiguousarray(rows["time_ns"]),
            terminated=last & terminated,
            truncated=last & (not terminated),
        )

    def _packed(self, call: int, step: StepOutcome) -> bytes:
        values = (
            step.executed, step.state, step.reward, int(step.alterations), int(step.source), call, step.index,
            step.time_ns,
        )  # fmt: skip
        return np.array(values, self._row).tobytes()
