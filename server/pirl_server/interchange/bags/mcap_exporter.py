"""Writes episodes as recordings of rosbag2 in MCAP, one folder each: for `ros2 bag`, Foxglove and readers of MCAP.

| topic | type | when |
|---|---|---|
| /camera/<camera>/image | sensor_msgs/Image, rgb8 | each policy call: images are stored with those |
| /state | sensor_msgs/JointState | each policy call and step: every entry of the state by its name |
| /joint_states | sensor_msgs/JointState | the same, of the entries NAME.position and NAME.velocity |
| /action/executed | sensor_msgs/JointState | each step: every entry of the action by its name |
| /action/commanded | sensor_msgs/JointState | each step that played a chunk |
| /action_chunks | pirl_msgs/ActionChunk | each policy call |
| /step_outcomes | pirl_msgs/StepOutcome | each step |
| /episode_events | pirl_msgs/EpisodeEvent | START and END with its label |
| /instruction | std_msgs/String | once |
| /success | std_msgs/Bool | at the end, when it is labelled |

All numbers are those of the store: float32 is exact in the float64 of a JointState. What ROS has no message for, such
as chains and densities, is an attachment, and gives the episode back bit for bit.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_server.config.interchange import ExportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.bags import messages
from pirl_server.interchange.bags.recording_writer import RecordingWriter
from pirl_server.interchange.checkpoints.staging import staged
from pirl_server.interchange.episodes import sidecar
from pirl_server.interchange.episodes.formats import Progress

ATTACHMENT, DESCRIPTION = "pirl_episode.safetensors", "pirl_episode"
BEGIN_NS = messages.SECOND_NS
"""first time of an episode whose own clock says nothing"""


@dataclass(frozen=True)
class _Clock:
    """When each call and step is said to be. C calls, T steps."""

    calls: NDArray[np.int64]
    """[C]"""
    steps: NDArray[np.int64]
    """[T]"""
    recorded: bool
    """whether these are the episode's own times, or made of the rate"""


@dataclass(frozen=True)
class _Event:
    time_ns: int
    topic: str
    kind: str
    message: Callable[[], Any]


def write(
    episodes: Sequence[Callable[[], Episode]], out: Path, settings: ExportSettings, progress: Progress
) -> Sequence[str]:
    """Write a folder with a recording per episode, named by its id; return what to know of it, one line each.

    Raises ValueError when `out` exists and when it is cancelled: nothing is left of it then.
    """
    made_up = 0
    with staged(out) as folder:
        for number, opener in enumerate(episodes):
            if progress.cancelled:
                raise ValueError(f"cancelled after {number} of {len(episodes)} episodes: nothing was written")
            made_up += not write_recording(folder, opener())
            progress.progress(number + 1, len(episodes), "episodes written")
    lines = [f"one recording per episode: ros2 bag play {out}/ID"]
    if made_up:
        lines.append(f"{made_up} episodes have no clock of their own: their times follow from the rate")
    return lines


def write_recording(folder: Path, episode: Episode) -> bool:
    """Write an episode into a new folder of its id below this one; return whether its times are its own."""
    clock = _clock(episode)
    recording = RecordingWriter(folder / episode.info.id)
    for event in sorted(_events(episode, clock), key=lambda each: each.time_ns):
        recording.write(event.topic, event.kind, event.message(), event.time_ns)
    recording.attach(ATTACHMENT, _sidecar(episode))
    info = episode.info
    said = {
        "id": info.id, "robot_id": info.robot_id, "instruction": info.instruction,
        "success": messages.OUTCOMES[info.success], "end_reason": info.end_reason,
        "policy_versions": ", ".join(info.policy_versions), "created": info.created,
        "times": "recorded" if clock.recorded else "made of the rate",
    }  # fmt: skip
    recording.describe(DESCRIPTION, said)
    recording.close()
    return clock.recorded


def camera_topics(names: Sequence[str]) -> dict[str, str]:
    """Return each camera's topic: letters, digits and underscores only, as ROS wants it, and no two alike."""
    topics: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        taken = sum(topic.startswith(f"/camera/{plain}") for topic in topics.values())
        topics[name] = f"/camera/{plain}{f'_{taken}' if taken else ''}/image"
    return topics


def _clock(episode: Episode) -> _Clock:
    calls, steps = episode.calls, episode.steps
    captured, times = np.asarray(calls.capture_time_ns), np.asarray(steps.time_ns)
    known = bool((captured > 0).all() and (times > 0).all())
    if known and (np.diff(captured) >= 0).all() and (np.diff(times) >= 0).all():
        return _Clock(captured, times, True)
    period = messages.SECOND_NS / episode.info.contract.rate_hz
    made = (BEGIN_NS + np.arange(1, len(times) + 1) * period).astype(np.int64)
    entered = np.maximum.accumulate(np.maximum(calls.step, 0)) if len(captured) else calls.step
    return _Clock((BEGIN_NS + entered * period).astype(np.int64), made, False)


def _events(episode: Episode, clock: _Clock) -> Iterator[_Event]:
    info = episode.info
    begin = int(min([*clock.calls[:1], *clock.steps[:1]], default=BEGIN_NS))
    end = int(max([*clock.calls[-1:], *clock.steps[-1:]], default=BEGIN_NS))
    started = (messages.START, begin, info.id, info.instruction, "", "")
    yield _Event(begin, "/episode_events", "pirl_msgs/msg/EpisodeEvent", lambda: messages.episode_event(*started))
    said = messages.make("std_msgs/msg/String", data=info.instruction)
    yield _Event(begin, "/instruction", "std_msgs/msg/String", lambda: said)
    for call in range(len(clock.calls)):
        yield from _call(episode, call, int(clock.calls[call]))
    for step in range(len(clock.steps)):
        yield from _step(episode, step, int(clock.steps[step]))
    if info.success is not None:
        label = messages.make("std_msgs/msg/Bool", data=info.success)
        yield _Event(end, "/success", "std_msgs/msg/Bool", lambda: label)
    ended = (messages.END, end, info.id, info.instruction, messages.OUTCOMES[info.success], info.end_reason)
    yield _Event(end, "/episode_events", "pirl_msgs/msg/EpisodeEvent", lambda: messages.episode_event(*ended))


def _call(episode: Episode, call: int, at: int) -> Iterator[_Event]:
    calls, info = episode.calls, episode.info
    for name, topic in camera_topics(list(calls.images)).items():
        yield _Event(at, topic, "sensor_msgs/msg/Image", partial(_image, episode, name, call, at))
    yield from _state(episode, np.asarray(calls.state[call]), at)
    version = int(calls.policy_version[call])
    if version < 0:  # an observation of a demonstration: no policy answered it
        return
    chunk = messages.action_chunk(
        np.asarray(calls.chunk[call]), at, call, episode_id=info.id, seed=int(calls.seed[call]),
        policy_version=info.policy_versions[version], dt=1.0 / info.contract.rate_hz,
        execute_horizon=info.execute_horizon,
    )  # fmt: skip
    yield _Event(at, "/action_chunks", "pirl_msgs/msg/ActionChunk", lambda: chunk)


def _image(episode: Episode, camera: str, call: int, at: int) -> Any:
    """Read when it is written: an episode's images may be more than fit into memory."""
    return messages.image(np.asarray(episode.calls.images[camera][call]), at, camera)


def _step(episode: Episode, step: int, at: int) -> Iterator[_Event]:
    steps = episode.steps
    executed, call, index = steps.executed[step], int(steps.call[step]), int(steps.index[step])
    yield from _state(episode, steps.state[step], at)
    yield _entries("/action/executed", [field.name for field in episode.info.contract.action], executed, at)
    if call >= 0:
        commanded = np.asarray(episode.calls.chunk[call, index])
        yield _entries("/action/commanded", [field.name for field in episode.info.contract.action], commanded, at)
    outcome = messages.make(
        "pirl_msgs/msg/StepOutcome",
        header=messages.header(at), chunk_id=messages.chunk_id(call), index=index,
        executed=np.ascontiguousarray(executed),
        state=np.ascontiguousarray(steps.state[step]), reward=float(steps.reward[step]),
        alterations=int(steps.alterations[step]), source=int(steps.source[step]), stamp=at,
        SOURCE_POLICY=0, SOURCE_HUMAN=1, SOURCE_HOLD=2,
    )  # fmt: skip
    yield _Event(at, "/step_outcomes", "pirl_msgs/msg/StepOutcome", lambda: outcome)


def _state(episode: Episode, state: NDArray[np.float32], at: int) -> Iterator[_Event]:
    names = [field.name for field in episode.info.contract.state]
    yield _entries("/state", names, state, at)
    value = dict(zip(names, state))
    joints = [name.removesuffix(".position") for name in names if name.endswith(".position")]
    if not joints:
        return
    positions = np.array([value[f"{joint}.position"] for joint in joints])
    moving = all(f"{joint}.velocity" in value for joint in joints)
    velocities = np.array([value[f"{joint}.velocity"] for joint in joints] if moving else [])
    message = messages.joint_state(joints, positions, velocities, at)
    yield _Event(at, "/joint_states", "sensor_msgs/msg/JointState", lambda: message)


def _entries(topic: str, names: list[str], values: NDArray[np.float32], at: int) -> _Event:
    message = messages.joint_state(names, values, np.zeros(0), at)
    return _Event(at, topic, "sensor_msgs/msg/JointState", lambda: message)


def _sidecar(episode: Episode) -> bytes:
    """The file of `interchange.episodes.sidecar`: frame n of its images is the image of call n."""
    with tempfile.TemporaryDirectory(prefix="pirl-bag-") as scratch:
        path = Path(scratch) / ATTACHMENT
        frames = {call: call for call in range(len(episode.calls.step))}
        sidecar.write(path, episode, frames, "", "png")
        return path.read_bytes()
