"""pirl's present store: raw images, or JPEG as `--image-codec CAMERA=jpeg` stores them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from our_episode import make_episode, small
from scene import ACTION, CAMERAS, HORIZON, NODES, Size, episode

from pirl_contract import ActionChunk, Observation, StepOutcome
from pirl_contract.v1 import policy_pb2 as pb
from pirl_server.episodes.image_codecs import EncodedImages, ImageCodec, encode_jpeg
from pirl_server.episodes.loader import EpisodeLoader, EpisodeSet
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.served_policy import PolicySample
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.episode_builder import EpisodeEnd, EpisodeStart
from pirl_server.serving.recorder import Limits, Recorder

CODEC = ImageCodec("jpeg")


class OurLayout:
    def __init__(self, name: str, folder: Path, size: Size) -> None:
        self._store, self._size, self._jpeg = EpisodeStore(folder), size, name == "pirl-jpeg"
        self._ids: list[str] = []
        self._set: EpisodeSet | None = None

    def prepare(self, number: int, data: dict[str, np.ndarray]) -> None:
        """What the server has when the episode ends: JPEG files were made when their calls came."""
        self._made = make_episode(data, self._size)
        if self._jpeg:
            side, files = self._size.side, {name: [encode_jpeg(each, 95) for each in data[name]] for name in CAMERAS}
            images = {name: EncodedImages.of(each, side, side, CODEC) for name, each in files.items()}
            self._made = replace(self._made, calls=replace(self._made.calls, images=images))

    def write(self, number: int, data: dict[str, np.ndarray]) -> None:
        self._ids.append(self._store.write(self._made).id)

    def seal(self) -> None:
        self._set = EpisodeSet.of(self._store, self._ids)

    def images(self, number: int, start: int, stop: int) -> np.ndarray:
        assert self._set is not None
        part = self._set.read((number, start, stop))
        return np.concatenate([part.calls.images[name] for name in CAMERAS])

    def small(self, turn: int) -> dict[str, float]:
        return small(self._store.root, turn)

    def long(self) -> dict[str, float]:
        """Record, publish and read 10,000 steps with two cameras of 96 pixels: resident memory above the start."""
        size, steps = Size(64, 96), 10_000
        data, recorder = episode(0, size), Recorder(self._store, Limits(memory_per_robot=2**25, free=0))
        contract = make_episode(data, size).info.contract
        builder = recorder.start(EpisodeStart("bench-1", contract, "push", "bench", 1, True, {}))
        chunk, chain = np.zeros((HORIZON, ACTION), np.float32), np.zeros((NODES, HORIZON, ACTION), np.float32)
        sample, before, peak = PolicySample(chunk, chain, 1, chunk, 0.5, 0.5, 0.0, 1), resident(), 0.0
        for step in range(steps):
            images = {name: data[name][step % 64].copy() for name in CAMERAS}
            seen = Observation(images, data["state"][step % 64], "push", "bench-1", step)
            recorder.add_call(builder, seen, sample, ActionChunk(chunk, 0.05, f"c{step}", "v1", 1, 1), 1.0)
            outcome = StepOutcome(f"c{step}", 0, chunk[0], data["state"][step % 64], time_ns=step + 1)
            recorder.take_outcomes(builder.id, seen, [outcome])
            time.sleep(0.001)
            peak = max(peak, resident())
        began = time.perf_counter()
        recorder.end(builder.id, EpisodeEnd(True, "sim", "success"))
        ended = time.perf_counter() - began
        peak = max(peak, resident())
        read = self._store.open(builder.id, lazily=True).calls.images
        for start in range(0, steps - 16, 16):
            for name in CAMERAS:
                read[name][start : start + 16]
        recorder.close()
        peak = max(peak, resident())
        raw = steps * 2 * size.side**2 * 3 / 2**20
        return {"raw MiB": raw, "memory above the start MiB": peak - before, "end s": ended}

    def whole(self, number: int) -> None:
        self._store.open(self._ids[number])

    def batches(self, count: int, length: int, batch: int, written: int) -> float:
        assert self._set is not None
        loader = EpisodeLoader(self._set, self._set.windows(length), batch, seed=0)
        began = time.perf_counter()
        for number, _ in enumerate(loader):
            if number + 1 == count:
                break
        return time.perf_counter() - began

    def enqueue(self) -> list[float]:
        """Seconds of codec and of `add_call` for each of 300 calls, as the control loop's thread spends them."""
        data, size = episode(0, self._size), self._size
        codecs = CameraCodecs(dict.fromkeys(CAMERAS, CODEC) if self._jpeg else {})
        sent = {name: pb.Image(encoding=pb.IMAGE_ENCODING_RGB8) for name in CAMERAS}
        chunk = np.zeros((HORIZON, ACTION), np.float32)
        chain = np.zeros((NODES, HORIZON, ACTION), np.float32)
        sample = PolicySample(chunk, chain, 1, chunk, 0.5, 0.5, 0.0, 1)
        recorder = Recorder(self._store, Limits(free=0))
        contract = make_episode(data, size).info.contract
        builder = recorder.start(EpisodeStart("bench-1", contract, "push", "bench", 1, True, {}))
        codec_s, add_s = list[float](), list[float]()
        for step in range(size.steps):
            images = {name: data[name][step] for name in CAMERAS}
            seen, began = Observation(images, data["state"][step], "push", "bench-1", step), time.perf_counter()
            seen, encoded = codecs.apply(seen, sent)
            applied = time.perf_counter()
            recorder.add_call(builder, seen, sample, ActionChunk(chunk, 0.05, f"c{step}", "v1", 1, 1), 1.0, encoded)
            add_s.append(time.perf_counter() - applied)
            codec_s.append(applied - began)
            time.sleep(0.002)
        recorder.discard(builder.id)
        recorder.close()
        return [float(np.quantile(each, q)) for each in (codec_s, add_s) for q in (0.5, 0.99)]


def resident() -> float:
    """MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def make(name: str, folder: Path, size: Size) -> OurLayout:
    return OurLayout(name, folder, size)
