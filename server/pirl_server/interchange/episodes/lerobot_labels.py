"""Which episodes of a LeRobotDataset succeeded: by a column of theirs, or as a user says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pirl_server.interchange.episodes import lerobot_layout as layout
from pirl_server.interchange.episodes.lerobot_dataset import Dataset, Entry


@dataclass(frozen=True)
class Labelling:
    """How episodes get their labels."""

    said: str
    """for a person"""
    success: Callable[[Entry], bool | None]


def labelling(dataset: Dataset, choice: str) -> Labelling:
    """The labels that a user chose. With `auto`: next.success where there is one, else a next.reward of 0 and 1 alone.

    Raises ValueError for a column that is not there, or holds no numbers.
    """
    if choice in ("all", "none", "unlabelled"):
        said = {"all": True, "none": False, "unlabelled": None}[choice]
        return Labelling(f"{choice}, as --success says", lambda entry: said)
    features = dataset.info.features
    if choice != "auto":
        if choice not in features or features[choice].shape != [1] or features[choice].dtype in ("string", "image"):
            numbers = [name for name, each in features.items() if each.shape == [1] and each.dtype != "string"]
            raise ValueError(f"--success {choice}: no column of numbers; there are {', '.join(numbers)}")
        return Labelling(f"'{choice}' above 0 in a success", lambda entry: _any(dataset, entry, choice))
    if layout.SUCCESS in features:
        known = layout.LABELLED in features
        return Labelling(f"'{layout.SUCCESS}' is true in a success", lambda entry: _labelled(dataset, entry, known))
    if layout.REWARD in features and _binary(dataset):
        return Labelling(
            f"'{layout.REWARD}', which is 0 or 1, is 1 in a success", lambda entry: _any(dataset, entry, layout.REWARD)
        )
    return Labelling("none: no column says which episodes succeeded; choose with --success", lambda entry: None)


def _labelled(dataset: Dataset, entry: Entry, known: bool) -> bool | None:
    if known and not _any(dataset, entry, layout.LABELLED):
        return None
    return _any(dataset, entry, layout.SUCCESS)


def _any(dataset: Dataset, entry: Entry, name: str) -> bool:
    return bool((dataset.columns(entry, [name])[name] > 0).any())


def _binary(dataset: Dataset) -> bool:
    """Whether all rewards are 0 or 1: of any other it is not known which mean a success."""
    return all(
        np.isin(dataset.columns(entry, [layout.REWARD])[layout.REWARD], (0.0, 1.0)).all() for entry in dataset.entries
    )
