"""Compares a policy's statistics with the robot's limits: another unit, sign or range raises no error anywhere else.

A policy in degrees, or one whose gripper runs from 0 to 1 where the contract has -1 to 1, is served without a word and
moves the arm wrong. Statistics are of data that the robot of the policy recorded, so they lie within its limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pirl_contract import Contract, Field
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.processing_spec import Normalisation

GROSS, FAR, LITTLE = 10.0, 0.5, 0.02
"""shares of the range between the limits: another unit; worth a look; hardly any of it is used"""
_TOOL_DELTA = re.compile(r"(^|_)tcp_d")
CLOSE = 0.05
"""of the range: an end that lies on a limit, or on the middle"""
PLAUSIBLE = {"rad": 4 * math.pi, "m": 10.0}
"""largest value by unit of an entry without limits"""


FIX = "give statistics in the contract's units with --norm-stats, or correct the contract"


@dataclass(frozen=True)
class _Entry:
    """One entry of state or action: what the data covers, and what the robot can do."""

    what: str
    unit: str
    low: float
    high: float
    limits: tuple[float, float] | None
    """None: unlimited"""
    relative: bool

    def said(self, verdict: str) -> str:
        limits = f"limits {self.limits[0]:g} to {self.limits[1]:g}" if self.limits else "no limits"
        data = f"{self.what} is {self.low:g} to {self.high:g} in the data"
        return f"{data}, the contract has {self.unit}, {limits}: {verdict}"


def check_units(
    contract: Contract, state: Normalisation, action: Normalisation, delta: Sequence[bool], fix: str = FIX
) -> None:
    """Raise ValueError that names the first entry whose data can't be in the contract's unit, and ends with the fix."""
    for entry in _entries(contract, state, action, delta):
        if entry.limits is not None and _beyond(entry, entry.limits) > GROSS:
            raise ValueError(f"{entry.said('another unit, or another order of entries')}; {fix}")


def check_relative(contract: Contract, delta: Sequence[bool]) -> None:
    """Raise ValueError for a relative action that the robot would take for something else.

    The server adds the entry of the state with the same number, so what leaves it is a target, and of that joint.
    """
    for number, relative in enumerate(delta):
        if not relative or number >= contract.state_dim:
            continue
        action, state = contract.action[number].name, contract.state[number].name
        joint, _, kind = action.partition(".")
        if kind.startswith(("delta", "velocity")) or _TOOL_DELTA.search(action):
            raise ValueError(
                f"action '{action}' of the contract counts from something already, and the checkpoint's is relative: it"
                " leaves the server as an absolute number; give the robot absolute entries (kind joint_position)"
            )
        if kind == "target" and state.removesuffix(".position") != joint:
            raise ValueError(
                f"action '{action}' is relative to state entry {number}, which is '{state}': both need one order, as in"
                " the checkpoint; change that of the profile's joints or of the parts of its action"
            )


def unusual_units(card: ModelCard) -> list[str]:
    """One line for each entry whose data is unusual for its limits, to be looked at before a robot moves."""
    how = card.processing
    assert how is not None, "a card without statistics"
    return unusual_entries(card.contract, how.state, how.action, how.delta)


def unusual_entries(
    contract: Contract, state: Normalisation, action: Normalisation, delta: Sequence[bool]
) -> list[str]:
    """The same for data that belongs to no card yet."""
    lines = (_unusual(entry) for entry in _entries(contract, state, action, delta))
    return [line for line in lines if line]


def _unusual(entry: _Entry) -> str:
    if entry.limits is None:
        largest = max(abs(entry.low), abs(entry.high))
        return entry.said("is it the same unit?") if largest > PLAUSIBLE.get(entry.unit, math.inf) else ""
    low, high = entry.limits
    if _beyond(entry, entry.limits) > FAR:
        mirrored = not entry.relative and low <= -entry.high and -entry.low <= high
        return entry.said("with the other sign it would fit" if mirrored else "is it the same unit?")
    ends = (entry.low - low) / (high - low), (entry.high - low) / (high - low)
    if any(abs(ends[0] - half) <= CLOSE and abs(ends[1] - half - 0.5) <= CLOSE for half in (0.0, 0.5)):
        return entry.said("one half exactly; does the policy count from 0 to 1?")
    if not entry.relative and ends[1] - ends[0] < LITTLE:
        return entry.said("hardly any of it; is it the same unit?")
    return ""


def _beyond(entry: _Entry, limits: tuple[float, float]) -> float:
    """How far the data leaves the limits, or how much wider it is, in ranges between the limits."""
    low, high = limits
    return max(low - entry.low, entry.high - high, entry.high - entry.low - (high - low)) / (high - low)


def _entries(
    contract: Contract, state: Normalisation, action: Normalisation, delta: Sequence[bool]
) -> Iterator[_Entry]:
    for kind, fields, statistics in (("state", contract.state, state), ("action", contract.action, action)):
        for index, (field, first, second) in enumerate(zip(fields, statistics.first, statistics.second)):
            # of a normal distribution, 95 of 100 values lie within two standard deviations
            ends = (first - 2 * second, first + 2 * second) if statistics.scheme == "zscore" else (first, second)
            relative = kind == "action" and index < len(delta) and delta[index]
            yield _Entry(f"{kind} '{field.name}'", field.unit, *ends, _limits(field, relative), relative)


def _limits(field: Field, relative: bool) -> tuple[float, float] | None:
    """A displacement is at most the whole range, either way."""
    if field.low is None or field.high is None or not field.low < field.high:
        return None
    return (field.low - field.high, field.high - field.low) if relative else (field.low, field.high)
