"""How many entries the robot's state and action have, where files may state the model's padded width instead.

A base's config.json keeps the model's width (32) when it is fine-tuned, and older data sets of openpi padded before
they computed statistics: zeros behind the robot's own entries.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pirl_server.policy.processing_spec import Normalisation

Kind = Literal["state", "action"]


def robot_width(kind: Kind, found: Normalisation, declared: int | None, padded: int, contract: int | None) -> int:
    """Width of the robot: of its statistics without padding, else as declared or as the contract has it.

    `padded` is the model's width. Raises ValueError for an unknown width, and for widths that contradict each other.
    """
    stated = None if declared == padded else declared
    width = _filled(kind, found, padded, contract) or stated or contract or declared
    if width is None:
        raise ValueError(f"the number of {kind} dimensions is unknown: give statistics with --norm-stats")
    if stated not in (None, width):
        raise ValueError(f"the {kind} has {stated} dimensions in config.json and {width} in its statistics")
    if width > padded:
        raise ValueError(f"the {kind} has statistics of {width} dimensions, the model reads {padded}")
    return width


def without_padding(kind: Kind, found: Normalisation, width: int) -> Normalisation:
    """Statistics of the robot's own entries. Raises ValueError where the policy saw other padding than zeros.

    openpi cuts statistics to the data's width. lerobot normalises the padding too, and makes -1 of it by a range of 0.
    """
    if len(found.first) <= width:
        return found
    if kind == "state" and found.scheme == "quantile" and found.convention == "lerobot":
        raise ValueError(
            f"the state's statistics are padded with zeros from {width} to {len(found.first)} entries, which lerobot"
            " normalises to -1 and not to 0: declare them in the contract, or give those of the robot with --norm-stats"
        )
    return replace(found, first=found.first[:width], second=found.second[:width])


def _filled(kind: Kind, found: Normalisation, padded: int, contract: int | None) -> int:
    """Entries of the statistics; without the zeros at their end where those are padding. 0: there are none."""
    own = len(found.first)
    while own and found.first[own - 1] == found.second[own - 1] == 0.0:
        own -= 1
    if contract is not None:
        return contract if own <= contract <= len(found.first) else len(found.first)
    return own if len(found.first) == padded else len(found.first)
