"""Makes an episode of what another program recorded: observations and the actions between them, without policy calls.

Each observation becomes a call that was not played, with an empty chunk, as a robot's are while a human drives: that is
where images are stored, and where a policy that sees learns from a person. PPO learns nothing from such an episode.

Shape letters: F observations, T = F - 1 steps, S state, D action.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Contract, ControlSource, Observation
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps

LABEL_SOURCE = "dataset"
"""of a label that an imported dataset has"""
FOREIGN = "imported"
"""robot id of episodes whose data names no robot"""


@dataclass(frozen=True)
class Recording:
    """One recorded episode in the contract's order and units. Arrays may be of any length-compatible dtype listed."""

    state: NDArray[np.float32]
    """[F, S] of each observation; the last one is what the last action led to"""
    action: NDArray[np.float32]
    """[T, D] what was executed between two observations"""
    images: Mapping[str, NDArray[np.uint8]]
    """by camera [F, height, width, 3]"""
    time_ns: NDArray[np.int64]
    """[F] rising; when each observation was made"""
    instruction: str
    success: bool | None
    """None: not labelled"""
    reward: NDArray[np.float32] | None = None
    """[T]; None: zeros"""
    source: NDArray[np.uint8] | None = None
    """[T] `ControlSource`; None: as the settings say"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """where it is from"""


def demonstration(
    recording: Recording, contract: Contract, robot_id: str, driver: ControlSource, episode_id: str
) -> Episode:
    """The episode of a recording.

    Raises ValueError that names the value for fewer than two observations, lengths, widths and sizes that do not agree
    with each other or the contract, a value that is not finite, and times that do not rise.
    """
    _check(recording, contract)
    count = len(recording.action)
    calls = _calls(recording, count)
    info = EpisodeInfo(
        id=episode_id,
        robot_id=robot_id,
        contract=contract,
        instruction=recording.instruction,
        success=recording.success,
        label_source="" if recording.success is None else LABEL_SOURCE,
        end_reason="success" if recording.success else "operator",
        policy_name="",
        policy_versions=(),
        execute_horizon=1,
        metadata=dict(recording.metadata),
        created=utc_now(),
    )
    final = Observation(
        {name: pixels[count] for name, pixels in recording.images.items()},
        recording.state[count],
        recording.instruction,
        robot_id,
        int(recording.time_ns[count]),
    )
    return Episode(info, calls, _steps(recording, count, driver), final)


def content_id(*parts: Any) -> str:
    """32 hexadecimal digits of arrays, texts and bytes, in this order; where one ends counts too."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            array = np.ascontiguousarray(part)
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(array.tobytes())
        else:
            raw = part if isinstance(part, bytes) else str(part).encode()
            digest.update(f"{len(raw)}:".encode())
            digest.update(raw)
    return digest.hexdigest()[:32]


def _calls(recording: Recording, count: int) -> Calls:
    width = recording.action.shape[1]
    empty = np.zeros((count, 0, width), np.float32)
    unknown = np.full(count, np.nan, np.float32)
    return Calls(
        images={name: pixels[:count] for name, pixels in recording.images.items()},
        state=recording.state[:count],
        capture_time_ns=recording.time_ns[:count],
        chunk=empty,
        chain=empty[:, None],
        sde_index=np.full(count, -1, np.int32),
        log_prob=empty,
        std=np.zeros(count, np.float32),
        noise_level=np.zeros(count, np.float32),
        value=unknown,
        seed=np.zeros(count, np.uint64),
        policy_version=np.full(count, -1, np.int32),
        step=np.full(count, -1, np.int32),
        latency_ms=unknown,
    )


def _steps(recording: Recording, count: int, driver: ControlSource) -> Steps:
    last = np.arange(count) == count - 1
    return Steps(
        executed=recording.action,
        state=recording.state[1:],
        reward=np.zeros(count, np.float32) if recording.reward is None else recording.reward,
        alterations=np.zeros(count, np.uint32),
        source=np.full(count, int(driver), np.uint8) if recording.source is None else recording.source,
        call=np.full(count, -1, np.int32),
        index=np.zeros(count, np.int32),
        time_ns=recording.time_ns[1:],
        terminated=last & bool(recording.success),
        truncated=last & (not recording.success),
    )


def _check(recording: Recording, contract: Contract) -> None:
    frames, count = len(recording.state), len(recording.action)
    if frames < 2 or count != frames - 1:
        raise ValueError(f"{frames} observations and {count} actions: an episode has one action between each two")
    widths = {"state": (recording.state, contract.state), "action": (recording.action, contract.action)}
    for what, (values, fields) in widths.items():
        if values.shape[1:] != (len(fields),):
            raise ValueError(f"{what} has {values.shape[1]} entries, the contract {len(fields)}")
        if not np.isfinite(values).all():
            row, entry = np.argwhere(~np.isfinite(values))[0].tolist()
            raise ValueError(
                f"{what} '{fields[entry].name}' of frame {row} is {values[row, entry]}: remove the episode"
            )
    contract.check_sizes({name: pixels.shape[1:3] for name, pixels in recording.images.items()})
    for name, pixels in recording.images.items():
        if len(pixels) != frames:
            raise ValueError(f"camera '{name}' has {len(pixels)} images, there are {frames} observations")
    if not (np.diff(recording.time_ns) > 0).all():
        row = int(np.flatnonzero(np.diff(recording.time_ns) <= 0)[0])
        times = recording.time_ns[row : row + 2].tolist()
        raise ValueError(f"the times of frames {row} and {row + 1} are {times[0]} and {times[1]} ns: they must rise")
