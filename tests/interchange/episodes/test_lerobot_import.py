"""LeRobotDatasets come in by value, with every fault named and its fix."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exchanged import PEER_CONTRACT, Peer, Steady, export, imported, logged, store_at

from pirl_contract import Camera, ControlSource
from pirl_contract.contract import Field
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.episodes.formats import recognise
from pirl_server.interchange.episodes.lerobot_dataset import file_at

Made = Callable[[str], Path]
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"


def all_of(folder: Path, store_folder: Path, **settings: Any) -> list[Episode]:
    """What an import makes, by the number in the dataset."""
    store = store_at(store_folder)
    imported(folder, store, **{"contract": PEER_CONTRACT, **settings})
    found = [store.open(each.id) for each in store.list()]
    return sorted(found, key=lambda each: int(each.info.metadata["dataset_episode"]))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def info_with(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def check_made(found: list[Episode], level: float = 0.0) -> None:
    """`lerobot_peer.make` in the contract's order; `level`: how far a codec may move a pixel."""
    assert [each.info.instruction for each in found] == ["wipe the table", "close the drawer"]
    assert [each.info.success for each in found] == [True, False]
    for number, each in enumerate(found):
        count = 6 + number
        value = np.float32(0.1 * number) + np.arange(count, dtype=np.float32) * np.float32(0.01)
        np.testing.assert_allclose(each.calls.state, np.stack([-value, value, 2 * value], 1)[:-1], atol=1e-6)
        assert each.final is not None
        np.testing.assert_allclose(each.final.state, np.array([-value[-1], value[-1], 2 * value[-1]]), atol=1e-6)
        np.testing.assert_allclose(each.steps.executed, np.stack([value - 0.5, value + 0.5], 1)[:-1], atol=1e-6)
        np.testing.assert_array_equal(each.steps.state[:-1], each.calls.state[1:])
        levels = (20 * number + 10 * np.arange(count)).astype(float)
        shown = [*each.calls.images["top"], each.final.images["top"]]
        assert np.abs([image.mean() for image in shown] - levels).max() <= level
        assert (each.steps.source == int(ControlSource.HUMAN)).all()
        np.testing.assert_allclose(np.diff(each.steps.time_ns), 1e8, rtol=1e-5)
        assert (each.calls.step == -1).all()
        assert each.calls.chunk.shape == (count - 1, 0, 2)
        assert (each.info.label_source, each.info.policy_versions) == ("dataset", ())


@pytest.mark.parametrize(("kind", "level"), [("image", 0.0), ("video", 2.5)])
def test_what_lerobot_made_comes_in_by_name(made: Made, tmp_path: Path, kind: str, level: float) -> None:
    check_made(all_of(made(kind), tmp_path / "store"), level)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_lerobot_makes_now_comes_in_too(peer: Peer, tmp_path: Path, kind: str) -> None:
    peer("make", tmp_path / "made", PEER_IMAGES=kind)
    check_made(all_of(tmp_path / "made", tmp_path / "store"), 0.0 if kind == "image" else 2.5)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_tables_are_read_by_value_not_by_position(made: Made, tmp_path: Path, kind: str) -> None:
    """Reversed tasks, episodes and frames, a gap in task_index: lerobot would read other tasks and images."""
    folder = made(kind)
    rewrite(folder / "meta/tasks.parquet", lambda table: table.take([1, 0]))
    rewrite(folder / EPISODES, lambda table: table.take([1, 0]))
    rewrite(folder / DATA, lambda table: table.take(list(range(len(table)))[::-1]))
    check_made(all_of(folder, tmp_path / "store"), 2.5)
    for path in (folder / "meta/tasks.parquet", folder / DATA):
        rewrite(path, lambda table: table.set_column(
            table.column_names.index("task_index"), "task_index",
            pa.array(np.where(table["task_index"].to_numpy() == 1, 9, 5)),
        ))  # fmt: skip
    check_made(all_of(folder, tmp_path / "other"), 2.5)


def test_what_a_reader_can_do_without_may_be_missing(made: Made, tmp_path: Path) -> None:
    """Lengths and statistics always, texts of tasks where an instruction is given."""
    folder = made("video")
    (folder / "meta/stats.json").unlink()
    unneeded = ("stats/", "length", "dataset_", "tasks", "meta/")
    kept = [name for name in pq.read_table(folder / EPISODES).column_names if not name.startswith(unneeded)]
    rewrite(folder / EPISODES, lambda table: table.select(kept))
    check_made(all_of(folder, tmp_path / "a"), 2.5)
    (folder / "meta/tasks.parquet").unlink()
    with pytest.raises(ValueError, match="no text for task_index 0: an episode has one instruction"):
        all_of(folder, tmp_path / "b")
    assert len(all_of(folder, tmp_path / "c", instruction="tidy up")) == 2


def test_the_files_statistics_are_not_read(made: Made, tmp_path: Path) -> None:
    folder = made("image")
    (folder / "meta/stats.json").write_text('{"action": {"q01": [NaN], "q99": [1e9]}}')
    check_made(all_of(folder, tmp_path / "store"))


@pytest.mark.parametrize("name", [DATA, VIDEO])
def test_a_missing_file_is_named_before_anything_is_imported(made: Made, tmp_path: Path, name: str) -> None:
    folder = made("video")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name}' is missing"):
        all_of(folder, tmp_path / "store")
    assert store_at(tmp_path / "store").list() == []


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_recording_without_finalize_is_rebuilt(made: Made, tmp_path: Path, kind: str) -> None:
    folder = made(kind)
    shutil.rmtree(folder / "meta/episodes")
    store = store_at(tmp_path / "store")
    done = imported(folder, store, contract=PEER_CONTRACT)
    assert "0 of 2: the recording ended without finalize(); 2 episodes were found in the data" in done.lines[0]
    check_made(all_of(folder, tmp_path / "other"), 2.5)


def test_a_killed_recording_names_the_file_and_what_is_lost(made: Made, tmp_path: Path) -> None:
    """A second data file without its end: the episodes of the first one are kept, with their images."""
    folder = made("video")
    whole = (folder / DATA).read_bytes()
    (folder / "data/chunk-000/file-001.parquet").write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(folder / "meta/episodes")
    info_with(folder, lambda info: info.update(total_episodes=3))
    store = store_at(tmp_path / "store")
    done = imported(folder, store, contract=PEER_CONTRACT)
    assert done.imported == 2
    assert "file-001.parquet' can't be read, it was cut short" in done.lines[1]
    (folder / DATA).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="has no episodes"):
        imported(folder, store, contract=PEER_CONTRACT)


@pytest.mark.slow
def test_recordings_of_lerobot_that_were_not_finalized(peer: Peer, tmp_path: Path) -> None:
    """Ended: all three episodes come back. Killed: the data file has no end, and is named."""
    peer("make", tmp_path / "ended", PEER_IMAGES="video", PEER_EPISODES="3", PEER_FINALIZE="no")
    found = all_of(tmp_path / "ended", tmp_path / "store")
    assert [len(each.steps.reward) for each in found] == [5, 6, 7]
    assert [round(float(each.calls.images["top"][0].mean()), -1) for each in found] == [0, 20, 40]
    peer("make", tmp_path / "killed", -9, PEER_IMAGES="video", PEER_EPISODES="3", PEER_FINALIZE="no", PEER_END="kill")
    with pytest.raises(ValueError, match=r"has no episodes; .*file-000.parquet' can't be read, it was cut short"):
        all_of(tmp_path / "killed", tmp_path / "none")


def test_names_that_do_not_match_are_an_error_with_the_fix(made: Made, tmp_path: Path) -> None:
    folder = made("image")
    other = replace(PEER_CONTRACT, action=(Field("b.pos", "rad"), Field("elbow", "rad")))
    with pytest.raises(ValueError, match=r"action: the contract's 'elbow' is not in the data, the data's 'a.pos' not"):
        all_of(folder, tmp_path / "a", contract=other)
    renamed = replace(other, state=(Field("elbow", "rad"), Field("b.pos", "rad")))
    found = all_of(folder, tmp_path / "b", contract=renamed, rename=("a.pos=elbow", "c.pos=-"))
    reference = all_of(folder, tmp_path / "c")
    np.testing.assert_array_equal(found[0].steps.executed, reference[0].steps.executed)
    np.testing.assert_array_equal(found[0].calls.state, reference[0].calls.state[:, :2])
    with pytest.raises(ValueError, match="--rename z: the data's entries are"):
        all_of(folder, tmp_path / "d", rename=("z=b.pos",))
    info_with(folder, lambda info: info["features"]["action"].update(names=None))
    with pytest.raises(ValueError, match=r"does not name the 2 entries of the action.*--positional"):
        all_of(folder, tmp_path / "e")
    taken = all_of(folder, tmp_path / "f", positional=True)
    np.testing.assert_array_equal(taken[0].steps.executed, reference[0].steps.executed[:, ::-1])
    with pytest.raises(ValueError, match="state has 3 entries, the contract 2: --positional needs as many"):
        all_of(folder, tmp_path / "g", contract=renamed, positional=True)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (replace(PEER_CONTRACT, rate_hz=30.0), "10 frames per second, the contract's rate is 30 Hz"),
        (replace(PEER_CONTRACT, cameras=(Camera("top", 32, 64),)), "is 64x64, camera 'top' of the contract 32x64"),
        (replace(PEER_CONTRACT, cameras=(Camera("wrist", 64, 64),)), "'top' is no camera of the contract"),
        (replace(PEER_CONTRACT, cameras=()), "leave it out with --camera top=-"),
        (replace(PEER_CONTRACT, cameras=(*PEER_CONTRACT.cameras, Camera("w", 4, 4))), "camera 'w' of the contract has"),
        (replace(PEER_CONTRACT, action=(Field("b.pos", "m", 0.0, 0.001), Field("a.pos", "m", 0.0, 0.001))),
         "another unit, or another order of entries; convert the data"),
    ],
)  # fmt: skip
def test_what_the_contract_has_otherwise_is_an_error(made: Made, tmp_path: Path, contract: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_of(made("image"), tmp_path / "store", contract=contract)


def test_without_a_contract_nothing_is_guessed(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give its contract with --contract FILE"):
        imported(made("image"), store_at(tmp_path))


def test_cameras_can_be_chosen_and_left_out(made: Made, tmp_path: Path) -> None:
    folder = made("video")
    wrist = replace(PEER_CONTRACT, cameras=(Camera("wrist", 64, 64),))
    assert list(all_of(folder, tmp_path / "a", contract=wrist, camera=("top=wrist",))[0].calls.images) == ["wrist"]
    shutil.rmtree(folder / "videos")
    blind = replace(PEER_CONTRACT, cameras=())
    assert all_of(folder, tmp_path / "b", contract=blind, camera=("top=-",))[0].calls.images == {}


def test_depth_is_rejected_by_name(made: Made, tmp_path: Path) -> None:
    folder = made("image")
    depth = {"dtype": "video", "shape": [64, 64, 1], "names": None, "info": {"is_depth_map": True}}
    info_with(folder, lambda info: info["features"].update({"observation.images.depth": depth}))
    with pytest.raises(ValueError, match=r"'observation.images.depth' is a depth map.*--camera depth=-"):
        all_of(folder, tmp_path / "a")
    check_made(all_of(folder, tmp_path / "b", camera=("depth=-",)))


def test_labels(made: Made, tmp_path: Path) -> None:
    folder = made("image")

    def labels(name: str, **settings: Any) -> list[bool | None]:
        return [each.info.success for each in all_of(folder, tmp_path / name, **settings)]

    assert labels("a", success="all") == [True, True]
    assert labels("b", success="none") == [False, False]
    assert labels("c", success="unlabelled") == [None, None]
    assert labels("d", success="episode_index") == [False, True]
    with pytest.raises(ValueError, match=r"--success grasped: no column of numbers; there are next.success"):
        labels("e", success="grasped")

    def renamed(name: str, values: list[float]) -> None:
        kept = [each for each in pq.read_table(folder / DATA).column_names if "next." not in each]
        rewrite(folder / DATA, lambda table: table.select(kept).append_column(name, pa.array(values, pa.float32())))
        feature = {"dtype": "float32", "shape": [1], "names": None}
        info_with(
            folder, lambda info: (info["features"].pop("next.success", 0), info["features"].update({name: feature}))
        )

    renamed("next.reward", [0.0] * 12 + [1.0])
    assert labels("f") == [False, True]
    renamed("next.reward", [0.5] * 12 + [1.0])
    assert labels("g") == [None, None], "of a dense reward it is not known which value is a success"
    assert labels("h", success="next.reward") == [True, True]


def test_an_episode_of_several_tasks_needs_one_instruction(made: Made, tmp_path: Path) -> None:
    folder = made("image")
    tasks = pa.array([0, 1] * 6 + [0])
    rewrite(folder / DATA, lambda table: table.set_column(table.column_names.index("task_index"), "task_index", tasks))
    with pytest.raises(ValueError, match="episode 0 has 2 tasks: an episode has one instruction"):
        all_of(folder, tmp_path / "a")
    assert {each.info.instruction for each in all_of(folder, tmp_path / "b", instruction="tidy up")} == {"tidy up"}


def test_stamps_off_the_grid(made: Made, tmp_path: Path) -> None:
    """With videos the image could not be found; without, stamps are kept and counted, and must rise."""

    def shift(frame: int, to_s: float) -> None:
        def change(table: pa.Table) -> pa.Table:
            stamps = table["timestamp"].to_numpy().copy()
            stamps[frame] = to_s
            at = table.column_names.index("timestamp")
            return table.set_column(at, "timestamp", pa.array(stamps, pa.float32()))

        rewrite(folder / DATA, change)

    folder = made("video")
    shift(3, 0.36)
    with pytest.raises(
        ValueError, match=r"episode 0: frame 3 is stamped 0.36 s, at 10 frames per second it is at 0.3 s"
    ):
        all_of(folder, tmp_path / "a")
    folder = made("image")
    shift(3, 0.36)
    store = store_at(tmp_path / "b")
    assert "1 frames are stamped more than half a period off" in "\n".join(
        imported(folder, store, contract=PEER_CONTRACT).lines
    )
    shift(3, 0.5)
    with pytest.raises(ValueError, match="times of frames 3 and 4 are 500000000 and 400000006 ns: they must rise"):
        all_of(folder, tmp_path / "c")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_importing_twice_does_not_double_and_a_stopped_import_continues(made: Made, tmp_path: Path, kind: str) -> None:
    folder, store = made(kind), store_at(tmp_path / "store")
    first = imported(folder, store, Steady(most=1), contract=PEER_CONTRACT)
    assert (first.imported, first.left) == (1, 1)
    assert len(store.list()) == 1
    again = imported(folder, store, contract=PEER_CONTRACT)
    assert (again.imported, again.already, again.left) == (1, 1, 0)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert imported(moved, store, contract=PEER_CONTRACT, success="all").already == 2
    assert len(store.list()) == 2


def test_other_images_make_another_episode(made: Made, tmp_path: Path) -> None:
    """Ids are of the content: the same numbers with other images are not the same episode."""
    first = all_of(made("image"), tmp_path / "a")
    other = all_of(made("video"), tmp_path / "b")
    assert {each.info.id for each in first}.isdisjoint(each.info.id for each in other)


def test_version_2_1(made: Made, tmp_path: Path) -> None:
    """Its layout, made from the same frames: a file an episode, tables as JSON lines."""
    new, old = made("video"), tmp_path / "old"
    (old / "meta").mkdir(parents=True)
    table = pq.read_table(new / DATA)
    for number in range(2):
        mine = table.filter(pa.compute.equal(table["episode_index"], number))
        path = old / f"data/chunk-000/episode_{number:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(mine, path)
    info = json.loads((new / "meta/info.json").read_text()) | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    info["features"]["observation.state"]["names"] = {"motors": ["b.pos", "a.pos", "c.pos"]}
    info["features"]["observation.images.top"]["dtype"] = "video"
    (old / "meta/info.json").write_text(json.dumps(info))
    tasks = [{"task_index": 1, "task": "close the drawer"}, {"task_index": 0, "task": "wipe the table"}]
    episodes = [{"episode_index": each, "tasks": [], "length": 6 + each} for each in (1, 0)]
    for name, rows in (("tasks", tasks), ("episodes", episodes)):
        (old / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"episode_000001.mp4' is missing"):
        all_of(old, tmp_path / "a")
    for number in range(2):
        place = old / f"videos/chunk-000/observation.images.top/episode_{number:06d}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        _cut_video(new / VIDEO, place, 6 * number, 6 + number)
    check_made(all_of(old, tmp_path / "b"), 4.0)


def _cut_video(source: Path, target: Path, first: int, count: int) -> None:
    from pirl_server.interchange.episodes.lerobot_video import VideoWriter, read_segment

    writer = VideoWriter(10, 64, 64)
    writer.open(target)
    for image in read_segment(source, first / 10, count, 10):
        writer.add(image)
    writer.close()


@pytest.mark.parametrize("version", ["v1.6", "v2.0", "v4.0"])
def test_other_versions_are_rejected(made: Made, tmp_path: Path, version: str) -> None:
    folder = made("image")
    info_with(folder, lambda info: info.update(codebase_version=version))
    with pytest.raises(ValueError, match=f"codebase_version '{version}' is neither v3.0 nor v2.1"):
        all_of(folder, tmp_path / "store")


@pytest.mark.parametrize(
    "template", ["../{chunk_index:03d}.parquet", "/etc/passwd", "{chunk_index.__class__}", "{x}", "data/{}"]
)
def test_paths_of_a_dataset_stay_inside_it(made: Made, tmp_path: Path, template: str) -> None:
    folder = made("image")
    (tmp_path / "000.parquet").write_bytes(b"x")
    info_with(folder, lambda info: info.update(data_path=template))
    with pytest.raises(ValueError, match=r"placeholder|outside its folder|missing"):
        all_of(folder, tmp_path / "store")
    assert file_at(folder, "meta/info.json", "data_path") == folder / "meta/info.json"
    os.symlink(tmp_path / "000.parquet", folder / "link")
    with pytest.raises(ValueError, match="link to outside its folder"):
        file_at(folder, "link", "data_path")


def test_formats_are_recognised_by_their_files(made: Made, tmp_path: Path) -> None:
    assert recognise(made("image"), "auto").name == "lerobot"
    with pytest.raises(ValueError, match="is none of the formats that can be imported"):
        recognise(tmp_path, "auto")
    with pytest.raises(ValueError, match="is not there"):
        recognise(tmp_path / "none", "auto")


def test_what_lerobot_appended_to_an_export_is_a_demonstration(tmp_path: Path) -> None:
    """It removes `pirl` from info.json; the contract is found beside the calls."""
    out = tmp_path / "out"
    export([logged(1), logged(2)], out)
    (out / "pirl/episode-000001.safetensors").unlink()
    info_with(out, lambda info: info.pop("pirl"))
    store = store_at(tmp_path / "store")
    assert imported(out, store).imported == 2
    robots = {store.open(each.id).info.robot_id for each in store.list()}
    assert robots == {"arm", "imported"}
