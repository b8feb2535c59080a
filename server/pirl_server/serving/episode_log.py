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
from pirl_server.episodes.schema import Calls, Steps
from pirl_server.policy.served_policy import PolicySample
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


class LoggedCalls:
    """Every method may be called from any thread; `folder` is made when the first call is written to it."""

    def __init__(self, folder: Path, cameras: Sequence[str]) -> None:
        self._folder, self._cameras = folder, tuple(cameras)
        self._lock = threading.Lock()
        self._writing = threading.RLock()  # one at a time; taken before the other
        self._rows: deque[Row] = deque()
        self._columns: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self._spilled, self._row_bytes = 0, 0
        self.nbytes = 0
        """memory that they take, about"""
        self._facts = bytearray()
        self._versions: dict[str, int] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._facts) // _FACTS.itemsize

    @property
    def nbytes_on_disk(self) -> int:
        """What was written to the files."""
        return self._spilled * self._row_bytes

    @property
    def versions(self) -> tuple[str, ...]:
        """The policy versions, in order of appearance."""
        return tuple(self._versions)

    def add(self, observation: Observation, sample: PolicySample, chunk: ActionChunk, latency_ms: float) -> None:
        """Remember one answered request. Raises ValueError when its arrays have another shape than the first one's."""
        images = {_image(n): observation.images[name] for n, name in enumerate(self._cameras)}
        # rows of a batch are views of all of it
        small = {"state": observation.state, "chunk": chunk.actions, "chain": sample.chain, "log_prob": sample.log_prob}
        row = images | {name: np.array(values, order="C") for name, values in small.items()}
        columns = {name: (values.dtype, values.shape) for name, values in row.items()}
        with self._lock:
            if self._columns and columns != self._columns:
                raise ValueError(f"a call of {columns} does not fit an episode of {self._columns}")
            self._columns, self._row_bytes = columns, sum(values.nbytes for values in row.values())
            version = self._versions.setdefault(chunk.policy_version, len(self._versions))
            facts = (
                observation.capture_time_ns, sample.sde_index, sample.std, sample.noise_level, sample.value,
                sample.seed, version, latency_ms, sample.altered,
            )  # fmt: skip
            self._facts += np.array(facts, _FACTS).tobytes()
            self._rows.append(row)
            self._weigh()

    def spill(self, keep_bytes: int) -> None:
        """Write the oldest calls to the files until the rest takes no more than this.

        Raises OSError: what could not be written stays in memory.
        """
        with self._writing:
            while not self._closed and (rows := self._surplus(keep_bytes)):
                self._append(rows)
                with self._lock:
                    for _ in rows:
                        self._rows.popleft()
                    self._spilled += len(rows)
                    self._weigh()

    def table(self, first_step: NDArray[np.int32]) -> Calls:
        """Return all calls; columns that were written to files are `FileRows`. Raises OSError.

        Nothing may be added meanwhile. `first_step` [C] of C calls.
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
                self._weigh()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _weigh(self) -> None:
        self.nbytes = len(self._rows) * self._row_bytes + len(self) * _CALL_BYTES

    def _all_facts(self) -> NDArray[Any]:
        with self._lock:
            return np.frombuffer(bytes(self._facts), _FACTS)

    def _surplus(self, keep_bytes: int) -> list[Row]:
        with self._lock:
            kept = min(len(self._rows), keep_bytes // self._row_bytes) if self._rows else 0
            return list(islice(self._rows, min(ROWS_AT_ONCE, len(self._rows) - kept)))

    def _append(self, rows: Sequence[Row]) -> None:
        """Write whole rows or none: whatever a failed attempt has left behind is overwritten by the next one."""
        self._folder.mkdir(exist_ok=True)
        for name, (dtype, shape) in self._columns.items():
            path = self._folder / f"{name}.bin"
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            with path.open("r+b" if self._spilled else "wb", buffering=0) as file:
                file.seek(self._spilled * size)
                for row in rows:
                    _write(file, np.ascontiguousarray(row[name]).reshape(-1).view(np.uint8).data)

    def _column(self, name: str) -> NDArray[Any]:
        if not self._spilled:
            with self._lock:
                return np.stack([row[name] for row in self._rows])
        dtype, shape = self._columns[name]
        rows = FileRows(self._folder / f"{name}.bin", dtype, (self._spilled, *shape))
        return cast("NDArray[Any]", rows)  # the store's writer reads slices only


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
