"""The executed steps of one open episode, a few hundred bytes each, up to a fixed number."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Alteration, Contract, StepOutcome
from pirl_server.episodes.schema import Steps
from pirl_server.serving.errors import BusyError

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

    def __len__(self) -> int:
        return len(self._rows) // self._row.itemsize

    @property
    def nbytes(self) -> int:
        """Memory that they take, about."""
        return len(self._rows) + _KEY_BYTES * len(self._seen)

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
