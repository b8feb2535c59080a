"""An episode at the contract's rate, from topics of any robot: states, images, and commands as actions.

Observation n is made at time n of a grid at the contract's rate: of each stream the newest value at or before it, which
may be `max_age` old. Action n is the newest command up to observation n + 1: what was commanded after observation n was
seen. A command counts until the next one, whatever its age: the controller holds its set-point.

Shape letters: F observations, T = F - 1 actions, S state, D action, N messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource
from pirl_server.interchange.bags.messages import SECOND_NS
from pirl_server.interchange.bags.segments import Segment
from pirl_server.interchange.bags.streams import Logged, Series, Streams
from pirl_server.interchange.bags.topic_map import TopicMap

FEWEST = 2
"""observations of an episode"""


@dataclass(frozen=True)
class Grid:
    """The rows of one episode, without its images."""

    time_ns: NDArray[np.int64]
    """[F]"""
    state: NDArray[np.float32]
    """[F, S]"""
    action: NDArray[np.float32]
    """[T, D]"""
    source: NDArray[np.uint8] | None
    """[T]; None: the recording does not say who drove"""
    part: int
    """of its segment, counted from 0"""


def grids(streams: Streams, segment: Segment, contract: Contract, topics: TopicMap) -> Iterator[Grid]:
    """Yield the episode of a segment, or with `stale: gap` those between its gaps.

    Raises ValueError that names a stream that is missing or stale, and when no action was commanded.
    """
    states = [_state_series(streams, field.name) for field in contract.state]
    actions = [_action_series(streams, field.name) for field in contract.action]
    time_F = _times(streams, segment, contract, [*states, *(series for series, _ in actions)])
    fresh_F = np.ones(len(time_F), np.bool_)
    streams_of = {field.name: series.time_ns for field, series in zip(contract.state, states)}
    streams_of |= {f"camera {name}": np.sort(streams.images[name][1]) for name in topics.cameras}
    for name, times in streams_of.items():
        age_F = time_F - times[newest(times, time_F)]
        stale_F = age_F > topics.max_age * SECOND_NS
        if stale_F.any() and topics.stale == "error":
            row = int(np.flatnonzero(stale_F)[0])
            after_s = (time_F[row] - time_F[0]) / SECOND_NS
            raise ValueError(
                f"{segment.name}: '{name}' is {age_F[row] / SECOND_NS:.3f} s old {after_s:.2f} s after its begin,"
                f" {topics.max_age:g} s are allowed: raise max_age, or set stale: gap to cut the episode there"
            )
        fresh_F &= ~stale_F
    for part, (first, after) in enumerate(_runs(fresh_F)):
        rows = slice(first, after)
        yield _grid(streams, time_F[rows], states, actions, contract, part)


def newest(times: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position of the newest of `times` at or before each of `at`, both [N]; 0 where there is none."""
    return np.clip(np.searchsorted(times, at, side="right") - 1, 0, None)


def _times(streams: Streams, segment: Segment, contract: Contract, series: Sequence[Series]) -> NDArray[np.int64]:
    """The grid from when each stream has begun."""
    period = SECOND_NS / contract.rate_hz
    begins = [int(each.time_ns[0]) for each in series]
    begins += [int(times.min()) for _, times in streams.images.values() if len(times)]
    begin = max([segment.begin_ns, *begins])
    count = int((min(segment.end_ns, streams.end_ns) - begin) // period) + 1
    if count < FEWEST:
        raise ValueError(
            f"{segment.name}: {max(0, count)} observations at {contract.rate_hz:g} Hz once every stream has begun:"
            " it is too short, or a stream ends too early"
        )
    return begin + np.round(np.arange(count) * period).astype(np.int64)


def _grid(
    streams: Streams, time_F: NDArray[np.int64], states: Sequence[Series],
    actions: Sequence[tuple[Series, Series | None]], contract: Contract, part: int,
) -> Grid:  # fmt: skip
    state = np.stack([series.value[newest(series.time_ns, time_F)] for series in states], axis=1)
    commanded = []
    for series, origin in actions:
        values = series.value[newest(series.time_ns, time_F[1:])]
        commanded.append(values if origin is None else values - origin.value[newest(origin.time_ns, time_F[:-1])])
    for kind, fields, values in (
        ("state", contract.state, state),
        ("action", contract.action, np.stack(commanded, axis=1)),
    ):
        if (lacking := ~np.isfinite(values)).any():
            entry = int(np.argwhere(lacking)[0][1])
            raise ValueError(f"{kind} '{fields[entry].name}' is not in every message of its topic, or not finite")
    source = _sources(streams.texts.get("source", []), time_F[:-1])
    return Grid(time_F, state.astype(np.float32), np.stack(commanded, axis=1).astype(np.float32), source, part)


def _state_series(streams: Streams, name: str) -> Series:
    series = streams.numbers.get(name) or streams.numbers.get(f"{name}.position")
    if series is None:
        known = ", ".join(sorted(each for each in streams.numbers if not each.endswith(".target"))) or "none"
        raise ValueError(f"state '{name}' is in no recorded topic of the map; there are {known}")
    return series


def _action_series(streams: Streams, name: str) -> tuple[Series, Series | None]:
    """A command's series and, for a displacement, that of the joint it counts from."""
    if name.endswith(".delta"):
        joint = name.removesuffix(".delta")
        return _command(streams, f"{joint}.target", name), _state_series(streams, f"{joint}.position")
    return _command(streams, name, name), None


def _command(streams: Streams, wanted: str, name: str) -> Series:
    if wanted not in streams.numbers:
        known = ", ".join(sorted(each for each in streams.numbers if each.endswith((".target", "gripper")))) or "none"
        raise ValueError(
            f"action '{name}' is in no recorded command topic; there are {known}. Name its topic in a map, or record"
            " step_outcomes, which have every action"
        )
    return streams.numbers[wanted]


def _sources(logged: list[Logged], time_T: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Who drove each step, [T]. Raises ValueError for a text that is no control source."""
    if not logged:
        return None
    known = {source.name.lower(): int(source) for source in ControlSource}
    if unknown := sorted({each.message.data for each in logged} - set(known)):
        raise ValueError(f"control source '{unknown[0]}' is not known: {', '.join(known)} are")
    times = np.array([each.time_ns for each in logged], np.int64)
    values = np.array([known[each.message.data] for each in logged], np.uint8)
    order = np.argsort(times, kind="stable")
    return values[order][newest(times[order], time_T)]


def _runs(fresh_F: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and after the last row of each run of fresh rows that is long enough."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], fresh_F.astype(np.int8), [0]])))
    for first, after in edges.reshape(-1, 2).tolist():
        if after - first >= FEWEST:
            yield first, after
