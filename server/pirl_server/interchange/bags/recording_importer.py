"""Reads recordings of rosbag2 as episodes: with everything where this project exported them, else by a topic map."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader

from pirl_contract import Contract, ControlSource
from pirl_server.config.interchange import ImportSettings
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.bags.known_files import recordings
from pirl_server.interchange.bags.mcap_exporter import ATTACHMENT, camera_topics
from pirl_server.interchange.bags.recorded_images import images_at
from pirl_server.interchange.bags.recording_file import OpenRecording, opened
from pirl_server.interchange.bags.reported import episode_of
from pirl_server.interchange.bags.resampled import Grid, grids, newest
from pirl_server.interchange.bags.segments import Segment, outcomes_of, segments
from pirl_server.interchange.bags.streams import Streams, read_streams
from pirl_server.interchange.bags.topic_map import EXPORTED, TopicMap, read_map
from pirl_server.interchange.episodes import sidecar
from pirl_server.interchange.episodes.demonstration import FOREIGN, Recording, content_id, demonstration
from pirl_server.interchange.episodes.formats import Candidate

FIXED_LABELS = {"all": True, "none": False, "unlabelled": None}


class RecordedEpisodes:
    """`Source` of the episodes of one or several recordings; each is open as long as one of its candidates is there."""

    def __init__(self, lines: Sequence[str], candidates: Sequence[Candidate]) -> None:
        self.lines, self._candidates = lines, candidates

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)


@dataclass(frozen=True)
class _How:
    """What is imported by: settings, map and contract."""

    settings: ImportSettings
    topics: TopicMap | None
    contract: Contract | None


def open_source(path: Path, settings: ImportSettings, contract: Contract | None) -> RecordedEpisodes:
    """Open a recording, or a folder of them. Raises ValueError that names what can't be read, and the fix."""
    if settings.rename or settings.positional:
        raise ValueError("--rename and --positional are not for recordings: a topic map names joints and topics")
    found = None if settings.topics is None else read_map(Path(settings.topics))
    own = None if found is None else found.contract
    if own is not None and contract is not None and (differences := own.difference(contract)):
        raise ValueError(f"the profile '{settings.topics}' is not of the contract: {'; '.join(differences)}")
    how = _How(settings, None if found is None else found.topics, contract or own)
    lines: list[str] = []
    candidates: list[Candidate] = []
    for recording in recordings(path):
        whole = _opened(recording)
        lines += whole.lines
        mine, said = _candidates(recording, whole, how)
        candidates += mine
        lines += said
    if not candidates:
        raise ValueError(f"'{path}' holds no episode: {'; '.join(lines) or 'nothing was recorded'}")
    return RecordedEpisodes(lines, candidates)


def _opened(path: Path) -> OpenRecording:
    """A recording that closes when it is no longer referred to."""
    closing = ExitStack()
    recording = closing.enter_context(opened(path))
    weakref.finalize(recording, closing.close)
    return recording


def _candidates(path: Path, recording: OpenRecording, how: _How) -> tuple[list[Candidate], list[str]]:
    own = _sidecar(recording)
    if own is not None and not how.settings.without_calls:
        return [Candidate(path.name, own.info.id, partial(_whole, path, recording, own))], []
    if own is not None and how.topics is None:
        cameras = camera_topics([camera.name for camera in own.info.contract.cameras])
        how = replace(how, topics=replace(EXPORTED, cameras=cameras), contract=how.contract or own.info.contract)
    if how.topics is None:
        raise ValueError(
            f"'{path}' says nothing of the robot: give its profile, or a map of topics, with --topics FILE"
        )
    if how.contract is None:
        raise ValueError("a topic map does not hold the robot's contract: give it with --contract FILE")
    return _by_topics(path, recording, how.topics, how.contract, how.settings)


def _by_topics(
    path: Path, recording: OpenRecording, topics: TopicMap, contract: Contract, settings: ImportSettings
) -> tuple[list[Candidate], list[str]]:
    topics = _with_cameras(topics, contract, settings)
    streams = read_streams(recording.reader, topics, f"'{path}'")
    candidates: list[Candidate] = []
    lines: list[str] = []
    for segment in segments(streams):
        named = replace(segment, name=f"'{path.name}', {segment.name}")
        if segment.discarded:
            lines.append(f"{named.name}: discarded by its operator, not imported")
            continue
        if not segment.end_reason:
            lines.append(f"{named.name}: its end was not recorded")
        if "outcomes" in streams.texts:
            candidates.append(_reported(path, recording, streams, named, contract, settings))
            continue
        for grid in grids(streams, named, contract, topics):
            candidates.append(_resampled(path, recording, streams, named, grid, contract, settings))
    return candidates, lines


def _with_cameras(topics: TopicMap, contract: Contract, settings: ImportSettings) -> TopicMap:
    """The map with `--camera TOPIC=CAMERA`, and only the cameras of the contract."""
    cameras = dict(topics.cameras)
    for pair in settings.camera:
        topic, _, camera = pair.partition("=")
        cameras[camera] = topic
    names = [camera.name for camera in contract.cameras]
    if lacking := [name for name in names if name not in cameras]:
        raise ValueError(f"camera '{lacking[0]}' of the contract has no topic: give it in the map, or with --camera")
    return replace(topics, cameras={name: cameras[name] for name in names})


def _reported(
    path: Path, recording: OpenRecording, streams: Streams, segment: Segment, contract: Contract,
    settings: ImportSettings,
) -> Candidate:  # fmt: skip
    numbers = [
        part for each in outcomes_of(streams, segment) for part in (np.asarray(each.executed), np.asarray(each.state))
    ]
    said = _said(streams, segment, settings, path)
    identity = content_id("recording", contract.hash, said["instruction"], segment.episode_id, *numbers)
    images = partial(_images, recording, streams, contract, path)
    read = partial(episode_of, streams, segment, contract, images, said | {"id": identity})
    return Candidate(segment.name, identity, read)


def _resampled(
    path: Path, recording: OpenRecording, streams: Streams, segment: Segment, grid: Grid, contract: Contract,
    settings: ImportSettings,
) -> Candidate:  # fmt: skip
    said = _said(streams, segment, settings, path)
    identity = content_id("recording", contract.hash, said["instruction"], grid.time_ns, grid.state, grid.action)

    def read() -> Episode:
        images = _images(recording, streams, contract, path, grid.time_ns.tolist())
        driver = ControlSource.HUMAN if settings.driver == "human" else ControlSource.POLICY
        recorded = Recording(
            grid.state, grid.action, images, grid.time_ns, said["instruction"], said["success"], None, grid.source,
            said["metadata"],
        )  # fmt: skip
        return demonstration(recorded, contract, said["robot_id"], driver, identity)

    return Candidate(segment.name + (f", part {grid.part}" if grid.part else ""), identity, read)


def _images(
    recording: OpenRecording, streams: Streams, contract: Contract, path: Path, times: Sequence[int]
) -> dict[str, Any]:
    return images_at(recording.reader, streams, contract, times, f"'{path}'")


def _said(streams: Streams, segment: Segment, settings: ImportSettings, path: Path) -> dict[str, Any]:
    """Instruction, label and robot of a segment. Raises ValueError where no instruction is known."""
    instruction = settings.instruction or segment.instruction
    spoken = streams.texts.get("instruction", [])
    if not instruction and spoken:
        times = np.array([each.time_ns for each in spoken], np.int64)
        instruction = spoken[int(newest(times, np.array([segment.begin_ns]))[0])].message.data
    if not instruction.strip():
        raise ValueError(f"{segment.name}: no instruction was recorded: give it with --instruction")
    return {
        "instruction": instruction, "success": _label(streams, segment, settings),
        "robot_id": settings.robot_id or FOREIGN, "metadata": {"imported_from": path.name},
    }  # fmt: skip


def _label(streams: Streams, segment: Segment, settings: ImportSettings) -> bool | None:
    if settings.success in FIXED_LABELS:
        return FIXED_LABELS[settings.success]
    if settings.success != "auto":
        raise ValueError(f"--success {settings.success}: a recording has no columns; use auto, all, none or unlabelled")
    if segment.labelled:
        return segment.success
    flags = [each.message.data for each in streams.texts.get("success", []) if _within(each.log_ns, segment)]
    return bool(flags[-1]) if flags else None


def _within(log_ns: int, segment: Segment) -> bool:
    return segment.log_begin_ns <= log_ns <= segment.log_end_ns


def _sidecar(recording: OpenRecording) -> sidecar.Sidecar | None:
    """What `mcap_exporter` attached. Raises ValueError when it can't be read."""
    for file in recording.files:
        if file.suffix != ".mcap":
            continue
        try:
            with file.open("rb") as stream:
                attached = [each for each in make_reader(stream).iter_attachments() if each.name == ATTACHMENT]
        except (McapError, ValueError, EOFError):
            continue  # cut short: what is left of it is read by its topics
        if attached:
            with tempfile.TemporaryDirectory(prefix="pirl-bag-") as scratch:
                (path := Path(scratch) / ATTACHMENT).write_bytes(attached[0].data)
                return sidecar.read(path)
    return None


def _whole(path: Path, recording: OpenRecording, own: sidecar.Sidecar) -> Episode:
    """An exported episode, bit for bit. Raises ValueError when a camera has not one image for each call."""
    contract, count = own.info.contract, len(own.arrays["call.step"])
    topics = camera_topics([camera.name for camera in contract.cameras])
    streams = Streams({each.topic: each.msgtype for each in recording.reader.connections})
    for camera, topic in topics.items():
        messages = sum(each.msgcount for each in recording.reader.connections if each.topic == topic)
        if messages != count:
            raise ValueError(f"'{path}': '{topic}' has {messages} images, its episode {count} calls: it was changed")
        streams.images[camera] = (topic, np.arange(count, dtype=np.int64))
    return own.episode(images_at(recording.reader, streams, contract, range(count), f"'{path}'"))
