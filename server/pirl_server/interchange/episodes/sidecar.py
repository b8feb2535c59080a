"""What other formats have no place for: policy calls, how steps were driven, and what is said once per episode.

One safetensors file an episode, in a folder that the format's own readers leave alone. With the images of the frames it
gives the episode back, bit for bit: chains and densities too. Images that are in no frame lie here.

Shape letters: C policy calls, F frames, N images that are in no frame.

`call.<array>` and `step.<array>` are those of `episodes.schema`; `call.frame` [C] is the frame whose images a call saw,
-1 - n where they are number n of `unframed.<camera>` [N, height, width, 3].
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pirl_contract import Contract, Observation
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Images, Steps
from pirl_server.interchange.checkpoints.source_folder import one_line

FORMAT, VERSION = "pirl-episode", "1"
Table = TypeVar("Table", Calls, Steps)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """One file, read."""

    info: EpisodeInfo
    rows: str
    """digest of the format's own numbers that it belongs to"""
    images_as: str
    """png: the frames hold the very pixels; video: a codec changed them"""
    arrays: Mapping[str, NDArray[Any]]

    def episode(self, frame_images: Images) -> Episode:
        """The episode, with the images of its frames by camera [F, height, width, 3]."""
        columns = _columns(Calls)
        frame = self.arrays["call.frame"]
        images = {name: self._images_of_calls(name, frame, pixels) for name, pixels in frame_images.items()}
        calls = Calls(images=images, **{name: self.arrays[f"call.{name}"] for name in columns})
        steps = Steps(**{name: self.arrays[f"step.{name}"] for name in _columns(Steps)})
        return Episode(self.info, calls, steps, self._final(list(frame_images)))

    def _images_of_calls(self, camera: str, frame_C: NDArray[np.int64], pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = np.empty((len(frame_C), *pixels.shape[1:]), np.uint8)
        framed = frame_C >= 0
        found[framed] = pixels[frame_C[framed]]
        found[~framed] = self.arrays[f"unframed.{camera}"][-1 - frame_C[~framed]]
        return found

    def _final(self, cameras: list[str]) -> Observation | None:
        if "final.state" not in self.arrays:
            return None
        images = {name: self.arrays[f"final.images.{name}"] for name in cameras}
        said = self.arrays["final.capture_time_ns"]
        return Observation(images, self.arrays["final.state"], self.info.instruction, self.info.robot_id, int(said[0]))


def write(path: Path, episode: Episode, frame_of_call: Mapping[int, int], rows: str, images_as: str) -> None:
    """Write the file of an episode. `frame_of_call` says which calls' images the frames hold."""
    calls, steps, final = episode.calls, episode.steps, episode.final
    arrays = {f"call.{name}": getattr(calls, name) for name in _columns(Calls)}
    arrays |= {f"step.{name}": getattr(steps, name) for name in _columns(Steps)}
    unframed = [call for call in range(len(calls.step)) if call not in frame_of_call]
    number = {call: -1 - index for index, call in enumerate(unframed)}
    arrays["call.frame"] = np.array([{**number, **frame_of_call}[call] for call in range(len(calls.step))], np.int64)
    arrays |= {f"unframed.{name}": pixels[unframed] for name, pixels in calls.images.items()}
    if final is not None:
        arrays["final.state"] = final.state
        arrays["final.capture_time_ns"] = np.array([final.capture_time_ns], np.int64)
        arrays |= {f"final.images.{name}": image for name, image in final.images.items()}
    said = {
        "format": FORMAT,
        "version": VERSION,
        "info": json.dumps(_plain(episode.info), sort_keys=True),
        "rows": rows,
        "images": images_as,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, str(path), metadata=said)


def read(path: Path) -> Sidecar:
    """Read a file. Raises ValueError that names it when it is none, of another version, or incomplete."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            said = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"'{path}' can't be read: {one_line(error)}") from None
    if (said.get("format"), said.get("version")) != (FORMAT, VERSION):
        found = f"{said.get('format')} {said.get('version')}"
        raise ValueError(f"'{path}' is '{found}', this reader knows '{FORMAT} {VERSION}': import it with a newer pirl")
    try:
        _check(arrays)
        return Sidecar(_info(json.loads(said["info"])), said["rows"], said["images"], arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' can't be read: {one_line(error)}; --without-calls imports the frames alone"
        ) from None


def _plain(info: EpisodeInfo) -> dict[str, Any]:
    values = {key.name: getattr(info, key.name) for key in dataclasses.fields(EpisodeInfo)}
    contract = json.loads(info.contract.to_json())
    return values | {
        "contract": contract,
        "metadata": dict(info.metadata),
        "policy_versions": list(info.policy_versions),
    }


def _info(raw: dict[str, Any]) -> EpisodeInfo:
    contract = Contract.from_json(json.dumps(raw["contract"]))
    return EpisodeInfo(**(raw | {"contract": contract, "policy_versions": tuple(raw["policy_versions"])}))


def _columns(table: type[Table]) -> list[str]:
    hints = get_type_hints(table, include_extras=True)
    return [name for name, hint in hints.items() if hasattr(hint, "__metadata__")]


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise KeyError for a missing array, ValueError for lengths that do not agree."""
    for prefix, table in (("call", Calls), ("step", Steps)):
        lengths = {name: len(arrays[f"{prefix}.{name}"]) for name in _columns(table)}  # type: ignore[type-var]
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the arrays of '{prefix}' have the lengths {lengths}")
    if len(arrays["call.frame"]) != len(arrays["call.step"]):
        raise ValueError("'call.frame' has another length than the calls")
