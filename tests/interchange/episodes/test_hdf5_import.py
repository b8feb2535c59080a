"""Files of robomimic and ManiSkill, as their own documentation lays them out, come in by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from exchanged import Steady, imported, store_at

from pirl_contract import Camera, Contract
from pirl_contract.contract import Field
from pirl_server.episodes.schema import Episode
from pirl_server.interchange.episodes.formats import recognise

LENGTHS = (4, 6)
ROBOMIMIC = Contract(
    robot="panda",
    cameras=(Camera("agentview", 8, 10),),
    state=(Field("grip", "m"), Field("robot0_eef_pos.0", "m"), Field("robot0_eef_pos.1", "m")),
    action=(Field("dy", "m"), Field("dx", "m")),
    rate_hz=20.0,
)
MANISKILL = Contract(
    robot="panda",
    cameras=(Camera("base_camera", 8, 10),),
    state=(Field("agent.qpos.0", "rad"), Field("agent.qpos.1", "rad")),
    action=(Field("a", "rad"), Field("b", "rad")),
    rate_hz=20.0,
)
RENAMES = ("robot0_gripper_qpos.0=grip", "action.0=dx", "action.1=dy", "object=-")


def numbers(episode: int, rows: int, width: int) -> np.ndarray:
    return (np.arange(rows * width).reshape(rows, width) / 100 + episode).astype(np.float64)


def pictures(episode: int, rows: int) -> np.ndarray:
    return np.random.default_rng(episode).integers(256, size=(rows, 8, 10, 3), dtype=np.uint8)


def robomimic(path: Path, next_obs: bool = True) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
        for number, count in reversed(list(enumerate(LENGTHS))):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = numbers(number, count, 2)
            demo["rewards"] = np.float64(np.arange(count) == (count - 1 if number == 1 else -1))
            demo["dones"] = np.int64(np.arange(count) == count - 1)
            whole = {"robot0_eef_pos": numbers(number, count + 1, 2), "robot0_gripper_qpos": numbers(9, count + 1, 1),
                     "object": numbers(7, count + 1, 5), "agentview_image": pictures(number, count + 1)}  # fmt: skip
            for key, values in whole.items():
                demo[f"obs/{key}"] = values[:-1]
                if next_obs:
                    demo[f"next_obs/{key}"] = values[1:]
    return path


def maniskill(path: Path, **env_kwargs: Any) -> Path:
    with h5py.File(path, "w") as file:
        for number, count in enumerate(LENGTHS):
            traj = file.create_group(f"traj_{number}")
            traj["actions"] = numbers(number, count, 2).astype(np.float32)
            traj["success"] = np.arange(count) == (count - 1 if number == 1 else 0)
            traj["obs/agent/qpos"] = numbers(number, count + 1, 2).astype(np.float32)
            traj["obs/sensor_data/base_camera/rgb"] = pictures(number, count + 1)
            traj["obs/sensor_param/base_camera/extrinsic_cv"] = np.zeros((count + 1, 3, 4), np.float32)
            traj["env_states/actors/cube"] = np.zeros((count + 1, 13), np.float32)
    described = {"env_info": {"env_id": "PushCube-v1", "env_kwargs": env_kwargs}, "episodes": []}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def all_of(path: Path, folder: Path, contract: Contract, **settings: Any) -> list[Episode]:
    store = store_at(folder)
    imported(path, store, contract=contract, instruction="lift it", **settings)
    found = [store.open(each.id) for each in store.list()]
    return sorted(found, key=lambda each: each.info.metadata["dataset_episode"])


def test_robomimic(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "demo.hdf5")
    assert recognise(path, "auto").name == "robomimic"
    found = all_of(path, tmp_path / "a", ROBOMIMIC, rename=RENAMES)
    assert [each.info.success for each in found] == [False, True]
    for number, (each, count) in enumerate(zip(found, LENGTHS)):
        place, grip = numbers(number, count + 1, 2), numbers(9, count + 1, 1)
        state = np.concatenate([grip, place], axis=1).astype(np.float32)
        np.testing.assert_array_equal(each.calls.state, state[:-1])
        np.testing.assert_array_equal(each.steps.state, state[1:])
        np.testing.assert_array_equal(each.steps.executed, numbers(number, count, 2)[:, ::-1].astype(np.float32))
        shown = pictures(number, count + 1)
        np.testing.assert_array_equal(each.calls.images["agentview"], shown[:-1])
        assert each.final is not None
        np.testing.assert_array_equal(each.final.images["agentview"], shown[-1])
        assert each.steps.reward[-1] == number
        np.testing.assert_array_equal(np.diff(each.steps.time_ns), 50_000_000)
    short = all_of(robomimic(tmp_path / "short.hdf5", next_obs=False), tmp_path / "b", ROBOMIMIC, rename=RENAMES)
    assert [len(each.steps.reward) for each in short] == [3, 5], "no observation follows the last action"


def test_maniskill(tmp_path: Path) -> None:
    path = maniskill(tmp_path / "trajectory.h5")
    assert recognise(path, "auto").name == "maniskill"
    found = all_of(path, tmp_path / "a", MANISKILL, positional=True, driver="policy")
    assert [each.info.success for each in found] == [False, True], "as it ended"
    assert [len(each.steps.reward) for each in found] == list(LENGTHS)
    np.testing.assert_array_equal(found[1].steps.state, numbers(1, 7, 2)[1:].astype(np.float32))
    np.testing.assert_array_equal(found[1].calls.images["base_camera"], pictures(1, 7)[:-1])
    once = all_of(path, tmp_path / "b", MANISKILL, positional=True, success="success")
    assert [each.info.success for each in once] == [True, True], "a column is asked for: above 0 at any step"


@pytest.mark.parametrize("make", [robomimic, maniskill])
def test_twice_and_stopped(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path, store = make(tmp_path / "file.h5"), store_at(tmp_path / "store")
    contract, rename = (ROBOMIMIC, RENAMES) if make is robomimic else (MANISKILL, ())
    settings = {"contract": contract, "rename": rename, "instruction": "lift it", "positional": make is maniskill}
    assert imported(path, store, Steady(most=1), **settings).imported == 1
    done = imported(path, store, **settings)
    assert (done.imported, done.already) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rename": RENAMES[:2]},
            "state: the contract's entries are all there, the data's 'object.0', .* not in the contract",
        ),
        ({"rename": (RENAMES[0], RENAMES[3])}, "action: the contract's 'dy', 'dx' are not in the data"),
        ({"rename": RENAMES, "camera": ("agentview=-",)}, "camera 'agentview' of the contract has no images"),
        ({"rename": RENAMES, "success": "lifted"}, "--success lifted: no such column; there are rewards, dones"),
        ({"rename": (*RENAMES, "nothing=-")}, "--rename nothing: the data's entries are"),
    ],
)
def test_what_does_not_match_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        all_of(robomimic(tmp_path / "demo.hdf5"), tmp_path / "store", ROBOMIMIC, **settings)


def test_rate_instruction_and_observations_are_not_guessed(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "demo.hdf5")
    with pytest.raises(ValueError, match="does not say what the robot was to do: give it with --instruction"):
        imported(path, store_at(tmp_path / "a"), contract=ROBOMIMIC, rename=RENAMES)
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 50}})
    with pytest.raises(ValueError, match="50 frames per second, the contract's rate is 20 Hz"):
        all_of(path, tmp_path / "b", ROBOMIMIC, rename=RENAMES)
    path = maniskill(tmp_path / "t.h5", sim_config={"control_freq": 10})
    with pytest.raises(ValueError, match="10 frames per second, the contract's rate is 20 Hz"):
        all_of(path, tmp_path / "c", MANISKILL, positional=True)
    with h5py.File(maniskill(path), "r+") as file:
        del file["traj_0/obs"]
    with pytest.raises(ValueError, match=r"traj_0 has no observations: replay it with an observation mode"):
        all_of(path, tmp_path / "d", MANISKILL, positional=True)


def test_numbers_come_from_the_file_itself_and_faults_are_named(tmp_path: Path) -> None:
    other = robomimic(tmp_path / "other.hdf5")

    def broken(name: str, change: Callable[[Any], None], message: str) -> None:
        path = robomimic(tmp_path / f"{name}.hdf5")
        with h5py.File(path, "r+") as file:
            change(file["data/demo_1"])
        with pytest.raises(ValueError, match=message):
            all_of(path, tmp_path / name, ROBOMIMIC, rename=RENAMES)

    def linked(demo: Any) -> None:
        del demo["actions"]
        demo["actions"] = h5py.ExternalLink(str(other), "data/demo_0/actions")

    def elsewhere(demo: Any) -> None:
        del demo["actions"]
        demo.create_dataset("actions", (6, 2), np.float64, external=[(str(other), 0, 96)])

    def short(demo: Any) -> None:
        values = demo["actions"][:-2]
        del demo["actions"]
        demo["actions"] = values

    def not_finite(demo: Any) -> None:
        demo["actions"][2, 1] = np.nan

    def without(demo: Any) -> None:
        del demo["actions"]

    broken("link", linked, "'/data/demo_1/actions' is a link: copy what it leads to")
    broken("external", elsewhere, "'/data/demo_1/actions' keeps its numbers in another file")
    broken("short", short, r"demo_1: 'object' has 6 rows for 4 actions")
    broken("nan", not_finite, r"demo_1: action 'dy' of frame 2 is nan: remove the episode")
    broken("none", without, "demo_1: no .*actions.*: not a file of robomimic")
    path = tmp_path / "cut.hdf5"
    path.write_bytes(other.read_bytes()[: other.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cut.hdf5' can't be read as HDF5"):
        all_of(path, tmp_path / "cut", ROBOMIMIC, rename=RENAMES)
