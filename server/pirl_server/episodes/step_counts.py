"""Counts of an episode's steps: the policy's, those of them that a robot's limit altered, a human's, and stops."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pirl_contract import Alteration, ControlSource
from pirl_server.episodes.zarr_layout import read_step_columns

LIMITS = Alteration.LIMIT | Alteration.JUMP | Alteration.NOT_FINITE | Alteration.WORKSPACE
"""of the alterations those that a limit of the robot made to what the policy commanded"""


@dataclass(frozen=True)
class StepCounts:
    """Of one episode."""

    policy: int
    """steps that the policy drove, or that were to be its own when a limit stopped it"""
    altered: int
    """of those"""
    human: int
    not_finite: int
    emergency_stop: int


def step_counts(group: Path) -> StepCounts:
    """Read them from an episode's Zarr group. Raises OSError, ValueError, KeyError for one that can't be read."""
    alterations, source = read_step_columns(group, "alterations", "source")
    by_policy = source != int(ControlSource.HUMAN)
    return StepCounts(
        policy=int(by_policy.sum()),
        altered=int((by_policy & ((alterations & int(LIMITS)) != 0)).sum()),
        human=int((~by_policy).sum()),
        not_finite=int(((alterations & int(Alteration.NOT_FINITE)) != 0).sum()),
        emergency_stop=int(((alterations & int(Alteration.EMERGENCY_STOP)) != 0).sum()),
    )
