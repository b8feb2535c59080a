"""The robot of a checkpoint: its contract, or a template, and which camera feeds which image input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pirl_contract import Camera, Contract, Field
from pirl_server.interchange.checkpoints.source_folder import one_line
from pirl_server.policy.processing_spec import CameraSlot

TEMPLATE = "edit-me"
"""robot name of a template: no robot's contract has its hash, so none can connect by accident"""
CAMERA_PX, RATE_HZ = 224, 20.0


def read_contract(path: Path) -> Contract:
    """A contract as JSON (`Contract.to_json`). Raises ValueError that names the file."""
    try:
        return Contract.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"'{path}': {one_line(error)}") from error


def template(cameras: Mapping[str, tuple[int, int]], state_dim: int, action_dim: int) -> Contract:
    """A contract of the right lengths whose names, units, limits and rate are to be filled in.

    `cameras` is name to height and width.
    """
    return Contract(
        robot=TEMPLATE,
        cameras=tuple(Camera(name, height, width) for name, (height, width) in cameras.items()),
        state=tuple(Field(f"state_{i}", "unknown") for i in range(state_dim)),
        action=tuple(Field(f"action_{i}", "unknown") for i in range(action_dim)),
        rate_hz=RATE_HZ,
    )


def slots(
    keys: Sequence[str], contract: Contract, chosen: Mapping[str, str], renamed: Mapping[str, str]
) -> tuple[CameraSlot, ...]:
    """Each image input with the contract's camera of the chosen name, else of the one that the folder renames to it.

    Else of its own name, else none.

    Raises ValueError for a choice that names nothing, and for a camera that would feed no input.
    """
    names = [camera.name for camera in contract.cameras]
    for key, camera in chosen.items():
        if key not in keys:
            raise ValueError(f"--camera {key}={camera}: the model's images are {', '.join(keys)}")
        if camera not in names:
            raise ValueError(f"--camera {key}={camera}: the contract's cameras are {', '.join(names)}")
    folder = {key: camera for key, camera in renamed.items() if camera in names}
    found = tuple(CameraSlot(key, chosen.get(key, folder.get(key, key if key in names else None))) for key in keys)
    for name in names:
        uses = [slot.key for slot in found if slot.camera == name]
        if len(uses) != 1:
            feeds = f"feeds {' and '.join(uses)}" if uses else "feeds no input"
            raise ValueError(
                f"camera '{name}' of the contract {feeds}: choose with --camera KEY={name}, KEY being {', '.join(keys)}"
            )
    if not names:
        raise ValueError("the contract has no camera: at least one image input needs a camera")
    return found


def check_sides(views: Sequence[CameraSlot], contract: Contract, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ValueError for a camera whose height is the folder's width, and the reverse. `sizes` is by image input."""
    cameras = {camera.name: camera for camera in contract.cameras}
    for view in views:
        camera, size = cameras.get(view.camera or ""), sizes.get(view.key)
        if camera is not None and size == (camera.width, camera.height) and camera.width != camera.height:
            raise ValueError(
                f"camera '{camera.name}' is {camera.height}x{camera.width} in the contract and {size[0]}x{size[1]} in"
                " config.json, height first: correct the one that is wrong"
            )
