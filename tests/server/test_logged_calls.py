"""Calls of an open episode in memory and in files: the same table wherever they lie, whatever the disk did."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pirl_contract import ActionChunk, Camera, Contract, Observation, StepOutcome
from pirl_server.episodes import zarr_archive
from pirl_server.episodes.file_rows import FileRows
from pirl_server.episodes.image_codecs import ImageCodec, decode_jpeg, encode_jpeg
from pirl_server.episodes.store import EpisodeStore
from pirl_server.policy.served_policy import PolicySample
from pirl_server.serving import episode_log
from pirl_server.serving.camera_codecs import EncodedImage
from pirl_server.serving.episode_builder import EpisodeEnd, EpisodeStart
from pirl_server.serving.episode_log import LoggedCalls
from pirl_server.serving.errors import BusyError
from pirl_server.serving.recorder import Limits, Recorder

SIDE = 128
IMAGE_BYTES = SIDE * SIDE * 3
COLUMNS = ("state", "chunk", "chain", "log_prob", "seed", "capture_time_ns", "latency_ms", "policy_version")


@pytest.fixture
def seeing(contract: Contract) -> Contract:
    return replace(contract, cameras=(Camera("wrist", SIDE, SIDE), Camera("top", 8, 8)))


@pytest.fixture
def call(seeing: Contract, make_policy: Any) -> Callable[[int], tuple[Observation, PolicySample, ActionChunk, float]]:
    policy = make_policy(contract=seeing, horizon=25)

    def make(number: int) -> tuple[Observation, PolicySample, ActionChunk, float]:
        rng = np.random.default_rng(number)
        images = {
            each.name: rng.integers(0, 256, (each.height, each.width, 3), dtype=np.uint8) for each in seeing.cameras
        }
        seen = Observation(images, rng.normal(size=3).astype(np.float32), "push", "arm-1", number)
        sample = policy.sample(seen, explore=True, seed=number)
        return seen, sample, ActionChunk(sample.actions, 0.05, f"c{number}", f"v{number % 3}", number, 3), float(number)

    return make


def as_jpeg(seen: Observation) -> dict[str, EncodedImage]:
    return {"top": EncodedImage(encode_jpeg(seen.images["top"], 90), ImageCodec("jpeg", 90))}


def whole(column: Any) -> np.ndarray[Any, Any]:
    return np.asarray(column[:])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(st.one_of(st.none(), st.integers(0, 6 * IMAGE_BYTES)), min_size=1, max_size=25),
    failing=st.sets(st.integers(0, 60), max_size=8),
)
def test_where_calls_lie_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seeing: Contract, call: Any, plan: list[int | None], failing: set[int]
) -> None:
    """None adds a call, a number spills down to it; some writes fail half way, as on a full disk."""
    folder, writes = tmp_path_factory.mktemp("spill") / "calls", 0
    write = episode_log._write

    def fails(file: Any, data: memoryview) -> None:
        nonlocal writes
        writes += 1
        if writes - 1 in failing:
            write(file, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        write(file, data)

    calls, given_ = LoggedCalls(folder, [each.name for each in seeing.cameras]), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(episode_log, "_write", fails)
        for keep in [None, *plan]:
            if keep is None:
                given_.append(call(len(given_)))
                calls.add(*given_[-1], as_jpeg(given_[-1][0]))
                continue
            try:
                calls.spill(keep)
            except OSError:
                continue
            assert calls.nbytes <= keep + 512 * len(given_)
    table = calls.table(np.zeros(len(given_), np.int32))
    pixels = np.stack([seen.images["wrist"] for seen, *_ in given_])
    np.testing.assert_array_equal(whole(table.images["wrist"]), pixels)
    files = [as_jpeg(seen)["top"].data for seen, *_ in given_]
    assert len({len(each) for each in files}) > 1 or len(files) < 3, "negative control: they differ in length"
    encoded: Any = table.images["top"]
    assert [encoded.files(row, row + 1) for row in range(len(given_))] == files
    np.testing.assert_array_equal(whole(encoded), np.stack([decode_jpeg(each, 8, 8) for each in files]))
    expected = {
        "state": [seen.state for seen, *_ in given_],
        "chunk": [chunk.actions for _, _, chunk, _ in given_],
        "chain": [sample.chain for _, sample, *_ in given_],
        "log_prob": [sample.log_prob for _, sample, *_ in given_],
        "seed": [sample.seed for _, sample, *_ in given_],
        "capture_time_ns": [seen.capture_time_ns for seen, *_ in given_],
        "latency_ms": [latency for *_, latency in given_],
        "policy_version": [list(calls.versions).index(chunk.policy_version) for _, _, chunk, _ in given_],
    }
    assert set(expected) == set(COLUMNS)
    for name, values in expected.items():
        np.testing.assert_array_equal(whole(getattr(table, name)), np.stack(values))
    calls.close()
    assert not folder.exists()


def test_a_file_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "rows.bin").write_bytes(bytes(30))
    rows = FileRows(tmp_path / "rows.bin", np.dtype(np.uint8), (4, 2, 5))
    assert rows[1:3].shape == (2, 2, 5)
    with pytest.raises(OSError, match="cut short"):
        rows[2:4]


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "control"])
def test_ten_thousand_steps_need_no_more_memory_than_their_share(
    tmp_path: Path, seeing: Contract, call: Any, monkeypatch: pytest.MonkeyPatch, bounded: bool
) -> None:
    """Recording, publishing and reading in windows; the control, where all is held, shows that the measure sees it."""
    monkeypatch.setattr(zarr_archive, "BLOCK_BYTES", 2**20)
    share, every, steps = (2**21 if bounded else 2**40), 25, 10_000
    store = EpisodeStore(tmp_path)
    recorder = Recorder(store, Limits(memory_per_robot=share, memory=2 * share, free=0))
    episode = recorder.start(EpisodeStart("arm-1", seeing, "push", "named", every, True, {}))
    given_ = [call(number) for number in range(8)]  # the same few again: what is measured is what is kept
    tracemalloc.start()
    try:
        for number in range(steps // every):
            seen, sample, chunk, latency = given_[number % 8]
            copy = replace(seen, images={name: image.copy() for name, image in seen.images.items()})
            recorder.add_call(episode, copy, sample, replace(chunk, chunk_id=f"c{number}"), latency)
            episode.add_outcomes([_step(f"c{number}", index, number * every + index) for index in range(every)])
            while bounded and episode.nbytes > share + steps * 300:
                time.sleep(0.001)  # the disk is slower than this loop, not than a robot
        receipt = recorder.end(episode.id, EpisodeEnd(True, "sim", "success"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    recorder.close()
    total = steps // every * IMAGE_BYTES
    assert receipt.steps == steps
    assert peak < total / 2 if bounded else peak > total
    assert list((tmp_path / "staging").iterdir()) == []
    tracemalloc.start()
    try:
        read = store.open(episode.id, lazily=bounded).calls.images
        for number in range(0, steps // every, 8):
            for name in ("wrist", "top"):
                expected = np.stack([seen.images[name] for seen, *_ in given_])
                np.testing.assert_array_equal(read[name][number : number + 8], expected)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < total / 4 if bounded else peak > total


def test_an_episode_has_so_many_steps_and_no_more(tmp_path: Path, seeing: Contract, call: Any) -> None:
    recorder = Recorder(EpisodeStore(tmp_path), Limits(steps=10))
    episode = recorder.start(EpisodeStart("arm-1", seeing, "push", "named", 3, True, {}))
    recorder.add_call(episode, *call(0))
    episode.add_outcomes([_step("", 0, 0)] * 9)  # anonymous: never told apart
    with pytest.raises(BusyError, match="9 steps, and at most 10: end the episode"):
        episode.add_outcomes([_step("c0", 0, 1), _step("c0", 1, 2)])
    episode.add_outcomes([_step("c0", 0, 1)] * 50)  # one, repeated
    assert recorder.end(episode.id, EpisodeEnd(True, "sim", "success"), [_step("c0", 2, 3)]).steps == 10
    assert recorder._store.summary(episode.id).success is True
    recorder.close()


def _step(chunk_id: str, index: int, time_ns: int) -> StepOutcome:
    return StepOutcome(chunk_id, index, np.zeros(2, np.float32), np.zeros(3, np.float32), time_ns=time_ns)
