"""What is exported is a LeRobotDataset for lerobot itself, and says what it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from exchanged import CONTRACT, SIDE, Peer, Steady, export, logged, scene
from toy_log import episode

from pirl_contract import ControlSource
from pirl_server.config.interchange import ExportSettings
from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes.lerobot_exporter import write
from pirl_server.interchange.episodes.lerobot_frames import frames
from pirl_server.interchange.episodes.lerobot_stats import ImageLevels, vector_stats
from pirl_server.interchange.episodes.lerobot_video import MIN_PSNR_DB, VideoWriter, read_segment
from pirl_server.training.episode_cut import cut


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


@pytest.mark.slow
def test_lerobot_opens_trains_on_and_appends_to_it(peer: Peer, tmp_path: Path) -> None:
    """Numbers come back exactly, and so do images; sockets are blocked, so nothing was looked for on a hub."""
    sentences = ("wipe the table", "close the drawer", "a first one by the alphabet")
    episodes = [logged(number, number % 2 == 0, 3 + number, instruction=sentences[number]) for number in range(3)]
    out = tmp_path / "dataset"
    export(episodes, out)
    found = peer("open", out)
    assert found["episodes"] == 3
    rows = iter(found["frames"])
    for number, each in enumerate(episodes):
        for step in range(len(each.steps.reward)):
            row = next(rows)
            call = step // 2
            state = each.calls.state[call] if step % 2 == 0 else each.steps.state[step - 1]
            assert np.array_equal(np.float32(row[layout.STATE]), state)
            assert np.array_equal(np.float32(row[layout.ACTION]), each.steps.executed[step])
            assert np.float32(row[layout.REWARD]) == each.steps.reward[step]
            assert row["observation.images.base"] == digest(each.calls.images["base"][call])
            assert (row["task"], row[layout.EPISODE], row[layout.FRAME]) == (sentences[number], number, step)
            last = step == len(each.steps.reward) - 1
            assert (row[layout.DONE], row[layout.SUCCESS]) == (last, last and number % 2 == 0)
            assert row[layout.OBSERVED] == (step % 2 == 0)
    assert next(rows, None) is None
    last = episodes[0].steps.executed[-1]
    assert np.array_equal(np.float32(found["padded"][0]), [last, last]), "not the next episode's action"
    assert found["padded"][1] == [False, True]
    for name, levels in found["stats"].items():
        if "images" in name:
            assert np.shape(levels["mean"]) == (3, 1, 1)
            assert 0.0 <= np.min(levels["min"]) <= np.max(levels["max"]) <= 1.0
            assert levels["count"] == [sum(len(each.steps.reward) for each in episodes)]
    declared = json.loads((out / layout.INFO).read_text())["features"]
    assert {name: dtype.removeprefix("torch.") for name, dtype in found["dtypes"].items() if "images" not in name} == {
        name: each["dtype"] for name, each in declared.items() if "images" not in name
    }
    losses = peer("train", out)["losses"]
    assert len(losses) == 10
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert peer("append", out)["episodes"] == 4
    again = peer("open", out)
    assert again["frames"][: len(found["frames"])] == found["frames"]
    assert again["frames"][-1]["task"] == "a new task"


@pytest.mark.slow
def test_lerobot_reads_the_right_images_of_videos(peer: Peer, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    export([logged(number, decisions=4) for number in range(3)], out, "video")
    found = peer("open", out)
    path = next(out.glob("videos/*/*/*.mp4"))
    with av.open(str(path)) as container:
        shown = [digest(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert [row["observation.images.base"] for row in found["frames"]] == shown
    assert peer("append", out)["episodes"] == 4
    assert len(peer("open", out)["frames"]) == len(shown) + 5


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255.0**2 / np.mean((first.astype(float) - second.astype(float)) ** 2)))


@pytest.mark.parametrize("side", [SIDE, 65], ids=["even", "odd"])
def test_video_keeps_scenes_within_the_bound_and_not_noise(tmp_path: Path, side: int) -> None:
    random = np.random.default_rng(0)
    scenes = [scene(number, side) for number in range(12)]
    noise = [random.integers(256, size=(side, side, 3), dtype=np.uint8) for _ in range(12)]
    worst = {}
    for name, images in (("scenes", scenes), ("noise", noise)):
        writer = VideoWriter(20, side, side)
        writer.open(tmp_path / f"{name}.mp4")
        for image in images:
            writer.add(image)
        writer.close()
        kept = list(read_segment(tmp_path / f"{name}.mp4", 0.0, 12, 20))
        worst[name] = min(psnr(one, other) for one, other in zip(images, kept))
    assert worst["scenes"] >= MIN_PSNR_DB
    assert worst["noise"] < MIN_PSNR_DB, "the bound is for images without noise, as the page says"


def test_a_segment_is_the_right_one_and_a_missing_image_is_named(tmp_path: Path) -> None:
    writer = VideoWriter(10, SIDE, SIDE)
    writer.open(tmp_path / "v.mp4")
    for number in range(9):
        writer.add(np.full((SIDE, SIDE, 3), 25 * number, np.uint8))
    writer.close()
    levels = [round(float(image.mean()) / 25) for image in read_segment(tmp_path / "v.mp4", 0.3, 4, 10)]
    assert levels == [3, 4, 5, 6]
    with pytest.raises(ValueError, match=r"no image at 0.9000 s, frame 4 of 5"):
        list(read_segment(tmp_path / "v.mp4", 0.5, 5, 10))
    with pytest.raises(ValueError, match=r"no image at 0.3333 s, frame 1 of 3"):
        list(read_segment(tmp_path / "v.mp4", 0.3, 3, 30))


def test_frames_show_what_training_pairs_with_steps() -> None:
    """Every window of a policy that sees begins at a frame with the images of the window's own call."""
    for played_late in (0, 1):
        each = logged(5, decisions=5)
        if played_late:  # each chunk is entered at its second action: its observation is one step older
            index = each.steps.index.copy()
            index[:] = np.tile([1, 2], 5)
            each = replace(each, steps=replace(each.steps, index=index, call=each.steps.call))
        paired, windows = frames(each), cut(each, 2, sees=True)
        for start, call in zip(windows.rows["start"].tolist(), windows.rows["call"].tolist()):
            if start < 0:
                continue
            assert paired.call[start - paired.first] == call
            assert paired.own[start - paired.first]
            np.testing.assert_array_equal(paired.state[start - paired.first], each.calls.state[call])
        assert int(paired.own.sum()) == len([start for start in windows.rows["start"] if start >= 0])


def test_images_of_a_takeover_are_placed_by_time() -> None:
    each = logged(6, decisions=3)
    stamps = np.arange(1, 7) * 100
    source = np.full(6, int(ControlSource.HUMAN), np.uint8)
    capture = np.array([50, 250, 251], np.int64)
    human = replace(
        each,
        calls=replace(each.calls, step=np.full(3, -1, np.int32), capture_time_ns=capture),
        steps=replace(each.steps, source=source, call=np.full(6, -1, np.int32), time_ns=stamps),
    )
    paired = frames(human)
    assert paired.call.tolist() == [0, 0, 2, 2, 2, 2]
    assert paired.own.tolist() == [True, False, True, False, False, False]
    nothing_before = replace(human, calls=replace(human.calls, capture_time_ns=capture + 100))
    assert frames(nothing_before).first == 1
    without_times = replace(human, steps=replace(human.steps, time_ns=np.zeros(6, np.int64)))
    assert len(frames(without_times)) == 0, "nobody knows which step an unplayed call without a time belongs to"


def test_steps_without_an_observation_and_what_is_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    good, bad = logged(1), logged(2)
    executed = bad.steps.executed.copy()
    executed[1, 0] = np.nan
    unlabelled = logged(3, None)
    lines = export([good, replace(bad, steps=replace(bad.steps, executed=executed)), unlabelled], tmp_path / "out")
    assert lines[0] == "2 episodes, 12 frames, 1 tasks"
    assert "1 episodes left out: with a state, an action or a reward that is not finite" in lines[1]
    assert any("1 episodes are unlabelled" in line for line in lines)
    text = (tmp_path / "out" / layout.STATS).read_text()
    assert "NaN" not in text
    with pytest.raises(ValueError, match="no episode can be exported: 1 with a state"):
        export([replace(bad, steps=replace(bad.steps, executed=executed))], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    odd = logged(1, contract=replace(CONTRACT, rate_hz=12.5))
    with pytest.raises(ValueError, match=r"rate is 12.5 Hz, LeRobot's fps is a whole number"):
        export([odd], tmp_path / "odd")
    openers = [partial(logged, number) for number in range(3)]
    with pytest.raises(ValueError, match="cancelled after 1 of 3 episodes"):
        write(openers, tmp_path / "cancelled", ExportSettings(), Steady(most=1))
    assert list(tmp_path.iterdir()) == []
    export([logged(1)], tmp_path / "there")
    with pytest.raises(ValueError, match="already exists: give a new folder"):
        export([logged(1)], tmp_path / "there")


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [("stamp", "float64", [1]), ("phase", "complex64", [1]), ("none", "float32", [0]), ("scalar", "float32", []),
     ("words", "string", [2]), ("a/b", "float32", [1]), ("image_is_good", "bool", [1]), ("count", "int32", [1])],
)  # fmt: skip
def test_only_what_lerobot_gives_back_as_it_was_may_be_declared(name: str, dtype: str, shape: list[int]) -> None:
    layout.check_storable(layout.features(CONTRACT, "png"))
    with pytest.raises(ValueError, match=f"feature '{name}' of dtype {dtype}"):
        layout.check_storable({name: {"dtype": dtype, "shape": shape}})


def test_tables_are_in_order_and_statistics_are_what_they_are_called(tmp_path: Path) -> None:
    episodes = [logged(number, decisions=2 + 5 * number, instruction=f"task {9 - number}") for number in range(3)]
    out = tmp_path / "out"
    export(episodes, out)
    tasks = pq.read_table(out / layout.TASKS)
    assert tasks["task_index"].to_pylist() == [0, 1, 2]
    assert tasks["task"].to_pylist() == ["task 9", "task 8", "task 7"]
    table = pq.read_table(out / layout.EPISODES.format(chunk_index=0, file_index=0))
    assert table["episode_index"].to_pylist() == [0, 1, 2]
    actions = np.concatenate([each.steps.executed for each in episodes])
    stats = json.loads((out / layout.STATS).read_text())["action"]
    np.testing.assert_allclose(stats["q01"], np.quantile(actions.astype(float), 0.01, axis=0))
    np.testing.assert_allclose(stats["std"], actions.astype(float).std(axis=0))
    lengths = table["length"].to_numpy()
    means = np.average(np.array(table["stats/action/q01"].to_pylist()), axis=0, weights=lengths)
    assert not np.allclose(stats["q01"], means, rtol=0.05), "lerobot's way gives other numbers here"
    about = json.loads((out / layout.INFO).read_text())["pirl"]
    assert "quantiles over the frames" in about["statistics"]
    assert "hold" in about["images"]
    assert about == json.loads((out / layout.ABOUT).read_text())


def test_levels_of_images_give_the_statistics_of_their_pixels() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(256, size=(7, 9, 3), dtype=np.uint8) for _ in range(4)]
    levels, part = ImageLevels(), ImageLevels()
    levels.add(images[0])
    for image in images[1:]:
        part.add(image)
    levels.merge(part)
    found, pixels = levels.stats(), np.stack(images).reshape(-1, 3) / 255.0
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(found[name]), getattr(pixels, name)(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.ravel(found["q90"]), np.quantile(pixels, 0.9, axis=0, method="inverted_cdf"))
    assert found["count"] == [4]
    assert vector_stats(np.array([True, False]))["mean"] == [0.5]


def test_robots_without_cameras_have_frames_from_the_recorded_states(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export([episode(1, True, np.zeros(2, np.float32))], out)
    table = pq.read_table(out / layout.DATA.format(chunk_index=0, file_index=0))
    assert layout.OBSERVED not in table.column_names
    assert len(table) == 6
