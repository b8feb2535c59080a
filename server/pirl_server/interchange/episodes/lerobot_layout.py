"""Names, paths and columns of a LeRobotDataset v3.0 folder, as lerobot 0.6.1 reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt

from pirl_contract import Contract

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES_FOLDER, DATA_FOLDER = "meta/episodes", "data"
CHUNK_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES = f"{EPISODES_FOLDER}/{CHUNK_FILE}.parquet"
DATA = f"{DATA_FOLDER}/{CHUNK_FILE}.parquet"
VIDEO = f"videos/{{video_key}}/{CHUNK_FILE}.mp4"
CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200
"""files of a folder; where a data and a video file end"""
SIDECAR, ABOUT = "pirl", "pirl/dataset.json"
"""folder beside `data` for what LeRobot has no place for: its readers and writers leave it alone. What info.json says
under `pirl` is there too: lerobot removes it when it appends"""

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
OBSERVED = "pirl.observed"
"""of a frame: its images were made for it; false: they are those of the last observation before it. No name but that of
images may have `image` in it: lerobot then expects statistics of three channels, and fails when it appends"""
LABELLED = "pirl.labelled"
"""of a frame: how its episode ended is known; false: `next.success` says nothing"""
TIMESTAMP, FRAME, EPISODE, INDEX, TASK = "timestamp", "frame_index", "episode_index", "index", "task_index"
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    TIMESTAMP: {"dtype": "float32", "shape": [1], "names": None},
    FRAME: {"dtype": "int64", "shape": [1], "names": None},
    EPISODE: {"dtype": "int64", "shape": [1], "names": None},
    INDEX: {"dtype": "int64", "shape": [1], "names": None},
    TASK: {"dtype": "int64", "shape": [1], "names": None},
}
"""features of every dataset, in lerobot's order"""
STORABLE = {"float32": None, "int64": None, "bool": 1, "image": 3, "video": 3}
"""dtypes that lerobot gives back as they were -> dimensions that it can have; None: a vector"""


class Feature(BaseModel):
    """One feature of info.json."""

    model_config = ConfigDict(extra="ignore")
    dtype: str
    shape: list[int]
    names: Any = None
    info: dict[str, Any] | None = None
    video_info: dict[str, Any] | None = None

    @property
    def is_depth(self) -> bool:
        """Whether lerobot takes it for a depth map."""
        notes = {**(self.video_info or {}), **(self.info or {})}
        return bool(notes.get("is_depth_map") or notes.get("video.is_depth_map"))


class Info(BaseModel):
    """What is read of info.json; more may be in it."""

    model_config = ConfigDict(extra="ignore")
    codebase_version: str
    fps: float
    features: dict[str, Feature]
    total_episodes: int
    total_frames: int = 0
    chunks_size: PositiveInt = CHUNK_FILES
    data_path: str = DATA
    video_path: str | None = VIDEO
    pirl: dict[str, Any] | None = None
    """of an export of pirl"""


def features(contract: Contract, images_as: str) -> dict[str, dict[str, Any]]:
    """The features of an export, checked to be ones that lerobot gives back as they were.

    Raises ValueError for a contract without state or action, of which lerobot has no form.
    """
    found: dict[str, dict[str, Any]] = {
        STATE: _vector([field.name for field in contract.state]),
        ACTION: _vector([field.name for field in contract.action]),
    }
    for camera in contract.cameras:
        dtype = "image" if images_as == "png" else "video"
        shape, names = [camera.height, camera.width, 3], ["height", "width", "channels"]
        found[IMAGES + camera.name] = {"dtype": dtype, "shape": shape, "names": names}
    flags = [DONE, SUCCESS, LABELLED, *([OBSERVED] if contract.cameras else [])]
    found[REWARD] = {"dtype": "float32", "shape": [1], "names": None}
    found |= {flag: {"dtype": "bool", "shape": [1], "names": None} for flag in flags}
    found |= {name: dict(each) for name, each in DEFAULTS.items()}
    check_storable(found)
    return found


def check_storable(declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError for a feature that lerobot can't store, or gives back as another type."""
    for name, feature in declared.items():
        dtype, shape = feature["dtype"], feature["shape"]
        dimensions = STORABLE.get(dtype, 0)
        fits = len(shape) == (dimensions or 1) and all(size > 0 for size in shape)
        fits &= "image" not in name or dimensions == 3
        if dtype not in STORABLE or not fits or "/" in name:
            raise ValueError(
                f"feature '{name}' of dtype {dtype} and shape {shape} can't be stored as a LeRobotDataset: its"
                f" features are {', '.join(STORABLE)} with at least one entry, and no '/' in a name"
            )


def _vector(names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [len(names)], "names": list(names)}


def frames_per_second(contract: Contract) -> int:
    """The contract's rate. Raises ValueError for one that is no whole number: LeRobot's fps is."""
    if not contract.rate_hz.is_integer():
        raise ValueError(
            f"the contract's rate is {contract.rate_hz:g} Hz, LeRobot's fps is a whole number: such episodes can't be"
            " exported as a LeRobotDataset"
        )
    return int(contract.rate_hz)
