"""An episode from what a robot of this project reports: the outcome of each action and the policy's chunks.

Steps are exactly those that the server would have stored. Policy calls have their observation put together again from
the topics at the chunk's stamp; the chains behind the chunks are not on any topic, so PPO learns nothing from them.

Shape letters: C calls, T steps, H horizon, D action, S state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Images, Steps
from pirl_server.interchange.bags.messages import time_ns
from pirl_server.interchange.bags.resampled import newest
from pirl_server.interchange.bags.segments import Segment, outcomes_of
from pirl_server.interchange.bags.streams import Streams
from pirl_server.interchange.episodes.demonstration import LABEL_SOURCE, Recording, demonstration

Observe = Callable[[Sequence[int]], Images]
"""images at these times, by camera [number of times, height, width, 3]"""


def chunks_of(streams: Streams, segment: Segment) -> list[Any]:
    """Return the chunks of an episode, each id once, in the order of the log."""
    found: dict[str, Any] = {}
    for each in streams.texts.get("chunks", []):
        named = each.message.episode_id == segment.episode_id if segment.episode_id else True
        if named and segment.log_begin_ns <= each.log_ns <= segment.log_end_ns:
            found.setdefault(each.message.chunk_id, each.message)
    return list(found.values())


def steps_of(
    streams: Streams, segment: Segment, contract: Contract, calls: Mapping[str, int], success: bool | None
) -> Steps:
    """Return the steps of an episode; `calls` are its chunks' numbers by their ids.

    Raises ValueError for an outcome of another width than the contract's, and when there is none.
    """
    outcomes = outcomes_of(streams, segment)
    if not outcomes:
        raise ValueError(f"{segment.name}: no step outcome was recorded in it")
    for number, each in enumerate(outcomes):
        if (len(each.executed), len(each.state)) != (contract.action_dim, contract.state_dim):
            raise ValueError(
                f"{segment.name}: outcome {number} has {len(each.executed)} and {len(each.state)} numbers, the contract"
                f" {contract.action_dim} and {contract.state_dim}: import with the contract of the recorded robot"
            )

    def column(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        return np.array([getattr(each, name) for each in outcomes], dtype)

    last = np.arange(len(outcomes)) == len(outcomes) - 1
    return Steps(
        executed=np.stack([np.asarray(each.executed, np.float32) for each in outcomes]),
        state=np.stack([np.asarray(each.state, np.float32) for each in outcomes]),
        reward=column("reward", np.float32),
        alterations=column("alterations", np.uint32),
        source=column("source", np.uint8),
        call=np.array([calls.get(each.chunk_id, -1) for each in outcomes], np.int32),
        index=column("index", np.int32),
        time_ns=column("stamp", np.int64),
        terminated=last & bool(success),
        truncated=last & (not success),
    )


def calls_of(streams: Streams, chunks: Sequence[Any], contract: Contract, steps: Steps, observe: Observe,
             versions: Mapping[str, int]) -> Calls:  # fmt: skip
    """Return the policy calls behind chunks, at least one.

    Raises ValueError for a chunk that is not [H, D] or of another H.
    """
    times = [time_ns(each.header.stamp) for each in chunks]
    shapes = sorted({(int(each.horizon), int(each.action_dim), len(each.actions)) for each in chunks})
    horizon, width, size = shapes[0]
    if len(shapes) > 1 or width != contract.action_dim or size != horizon * width:
        raise ValueError(
            f"chunks of horizon, width and numbers {shapes}: the contract's width is {contract.action_dim}"
        )
    count = len(chunks)
    chunk = np.array([each.actions for each in chunks], np.float32).reshape(count, horizon, width)
    unknown = np.full(count, np.nan, np.float32)
    first = np.full(count, -1, np.int32)
    played, at = np.unique(steps.call, return_index=True)
    first[played[played >= 0]] = at[played >= 0]
    return Calls(
        images=observe(times),
        state=_states(streams, contract, times, steps),
        capture_time_ns=np.array(times, np.int64),
        chunk=chunk,
        chain=np.zeros((count, 0, horizon, width), np.float32),
        sde_index=np.full(count, -1, np.int32),
        log_prob=np.zeros_like(chunk),
        std=np.zeros(count, np.float32),
        noise_level=np.zeros(count, np.float32),
        value=unknown,
        seed=np.array([each.seed for each in chunks], np.uint64),
        policy_version=np.array([versions[each.policy_version] for each in chunks], np.int32),
        step=first,
        latency_ms=unknown,
    )


def _states(streams: Streams, contract: Contract, times: Sequence[int], steps: Steps) -> NDArray[np.float32]:
    """[C, S] of the observations: that of the step with the same stamp, else the newest number of each topic."""
    state_CS = np.full((len(times), contract.state_dim), np.nan, np.float32)
    by_time = {int(time): row for row, time in enumerate(steps.time_ns)}
    for call, time in enumerate(times):
        if time in by_time:
            state_CS[call] = steps.state[by_time[time]]
            continue
        for entry, field in enumerate(contract.state):
            series = streams.numbers.get(field.name) or streams.numbers.get(f"{field.name}.position")
            if series is not None:
                state_CS[call, entry] = series.value[newest(series.time_ns, np.array([time]))[0]]
    if (lacking := ~np.isfinite(state_CS)).any():
        call, entry = np.argwhere(lacking)[0].tolist()
        raise ValueError(f"state '{contract.state[entry].name}' of chunk {call} is in no recorded topic of the map")
    return state_CS


def info_of(segment: Segment, contract: Contract, chunks: Sequence[Any], said: Mapping[str, Any]) -> EpisodeInfo:
    """Return what is said once per episode; `said` are id, robot_id, instruction, success and metadata."""
    versions = tuple(dict.fromkeys(each.policy_version for each in chunks))
    return EpisodeInfo(
        contract=contract,
        label_source="" if said["success"] is None else LABEL_SOURCE,
        end_reason=segment.end_reason or "fault",
        policy_name="",
        policy_versions=versions,
        execute_horizon=int(chunks[0].execute_horizon),
        created=utc_now(),
        **said,
    )


def episode_of(
    streams: Streams, segment: Segment, contract: Contract, observe: Observe, said: Mapping[str, Any]
) -> Episode:
    """Return a segment's episode. Raises ValueError as the functions above do, and `demonstration`.

    Without a chunk it is a demonstration: each outcome is the observation of the next step, and the first step, before
    which nothing was observed, is left out.
    """
    chunks = chunks_of(streams, segment)
    numbers = {each.chunk_id: number for number, each in enumerate(chunks)}
    steps = steps_of(streams, segment, contract, numbers, said["success"])
    if not chunks:
        shown = Recording(
            steps.state, steps.executed[1:], observe(steps.time_ns.tolist()), steps.time_ns, said["instruction"],
            said["success"], steps.reward[1:], steps.source[1:], said["metadata"],
        )  # fmt: skip
        return demonstration(shown, contract, said["robot_id"], ControlSource.HUMAN, said["id"])
    info = info_of(segment, contract, chunks, said)
    versions = {version: number for number, version in enumerate(info.policy_versions)}
    return Episode(info, calls_of(streams, chunks, contract, steps, observe, versions), steps)
