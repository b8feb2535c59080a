"""Normalisation statistics and those a scheme needs. `policy.normalisation` checks their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pirl_server.interchange.checkpoints.source_folder import parse, read_object
from pirl_server.policy.processing_spec import Family as Convention
from pirl_server.policy.processing_spec import Normalisation, Scheme

Statistics = Mapping[str, tuple[float, ...]]
"""one value per dimension by name: mean, std, q01, q99, q10, q90, min, max"""

NEEDED = {"zscore": ("mean", "std"), "quantile": ("q01", "q99")}


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    mean: list[float] | None = None
    std: list[float] | None = None
    q01: list[float] | None = None
    q99: list[float] | None = None
    q10: list[float] | None = None
    q90: list[float] | None = None
    min: list[float] | None = None
    max: list[float] | None = None


class _Pair(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    state: _Entry
    actions: _Entry


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    norm_stats: _Pair


def read_norm_stats(path: Path) -> dict[str, Statistics]:
    """Statistics of "state" and "action" in openpi's norm_stats.json. Raises ValueError for any other form."""
    pair = parse(_File, read_object(path), f"'{path}'").norm_stats
    return {"state": _values(pair.state), "action": _values(pair.actions)}


def norm_stats_object(statistics: Mapping[str, Statistics]) -> dict[str, Any]:
    """Inverse of `read_norm_stats`, to be written as JSON."""
    named = {"state": statistics["state"], "actions": statistics["action"]}
    return {"norm_stats": {key: {name: list(row) for name, row in each.items()} for key, each in named.items()}}


def normalisation(
    kind: str,
    statistics: Statistics | None,
    scheme: Scheme,
    convention: Convention,
    ends: tuple[str, str] = NEEDED["quantile"],
) -> Normalisation:
    """What the card says; `ends` are the statistics that a quantile scheme takes.

    Raises ValueError for statistics that are absent or uneven.
    """
    if scheme == "none":
        return Normalisation("none", convention, (), ())
    names = ends if scheme == "quantile" else NEEDED[scheme]
    if statistics is None or any(name not in statistics for name in names):
        raise ValueError(f"no {' and '.join(names)} of the {kind}: give those of the data set with --norm-stats FILE")
    first, second = (statistics[name] for name in names)
    if len(first) != len(second) or not first:
        raise ValueError(f"{kind}: {names[0]} has {len(first)} values, {names[1]} has {len(second)}")
    return Normalisation(scheme, convention, first, second)


def _values(entry: _Entry) -> Statistics:
    return {name: tuple(row) for name, row in entry.model_dump(exclude_none=True).items()}
