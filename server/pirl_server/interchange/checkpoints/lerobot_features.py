"""Features of lerobot's config.json: image inputs with their sizes, vectors with their widths, and what is renamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, PositiveInt

CONFIG = "config.json"
IMAGES = "observation.images."
CHANNELS = 3


class Feature(BaseModel):
    """One input or output of the policy."""

    model_config = ConfigDict(strict=True, extra="ignore")
    type: str
    shape: list[PositiveInt]


Features = Mapping[str, Feature]


def camera_name(feature: str) -> str:
    """What the image input or camera is called here."""
    return feature.removeprefix(IMAGES).removeprefix("observation.")


def image_sizes(features: Features) -> dict[str, tuple[int, int]]:
    """Height and width of each image input, in their order. Raises ValueError for a shape that isn't an RGB image."""
    return {camera_name(key): _size(key, each.shape) for key, each in features.items() if each.type == "VISUAL"}


def vector_width(features: Features, name: str) -> int | None:
    """Width of the state or the action; None: not stated. Raises ValueError for another shape than a vector."""
    if name not in features:
        return None
    if len(features[name].shape) != 1:
        raise ValueError(f"{CONFIG}: '{name}' has shape {features[name].shape}; a vector is expected")
    return features[name].shape[0]


def renamed_cameras(renamed: Mapping[str, str], features: Features) -> dict[str, str]:
    """Image input -> name of the robot's camera that a rename map puts there.

    Raises ValueError for a feature that the model reads and that is renamed away, or that two others would feed.
    """
    found: dict[str, str] = {}
    for source, target in renamed.items():
        if source != target and source in features and source not in renamed.values():
            raise ValueError(f"rename_map turns '{source}', which the model reads, into '{target}': it would be lost")
        if list(renamed.values()).count(target) > 1:
            raise ValueError(f"rename_map makes '{target}' of two features, one of them '{source}'")
        if source != target and target in features and features[target].type == "VISUAL":
            found[camera_name(target)] = camera_name(source)
    return found


def _size(feature: str, shape: Sequence[int]) -> tuple[int, int]:
    """lerobot writes channels first, and last when the data set calls that axis anything but 'channel'."""
    first, last = len(shape) == 3 and shape[0] == CHANNELS, len(shape) == 3 and shape[2] == CHANNELS
    if first == last:
        what = "could be channels first or last" if first else "is no image of three channels"
        raise ValueError(f"{CONFIG}: '{feature}' has shape {list(shape)}, which {what}: write [3, height, width]")
    return (shape[1], shape[2]) if first else (shape[0], shape[1])
