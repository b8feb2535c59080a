"""The steps of an episode as numbers to plot, thinned out.

Shape letters: T steps, P points, S state, D action, H horizon.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_contract import Field
from pirl_server.api.episode_schemas import ChannelView, EpisodeSteps, RunView
from pirl_server.episodes.zarr_layout import EpisodeFile
from pirl_server.inspection.timeline import runs


def sampled(file: EpisodeFile, points: int) -> EpisodeSteps:
    """Return every n-th step, so that there are at most so many; what was altered in between is counted with it."""
    call_T, time_T, source_T = (file.column(f"step/{name}") for name in ("call", "time_ns", "source"))
    count = len(call_T)
    stride = max(1, -(-count // points))
    step_P = np.arange(0, count, stride)
    contract = file.info.contract
    clock = count and bool((time_T > 0).all())
    seconds = (time_T[step_P] - time_T[0]) / 1e9 if clock else step_P / contract.rate_hz
    altered = np.bitwise_or.reduceat(file.column("step/alterations"), step_P) if count else step_P
    return EpisodeSteps(
        steps=count,
        stride=stride,
        rate_hz=contract.rate_hz,
        step=step_P.tolist(),
        time_s=[round(float(each), 6) for each in seconds],
        state=_channels(contract.state, file.column("step/state")[step_P]),
        executed=_channels(contract.action, file.column("step/executed")[step_P]),
        commanded=_channels(contract.action, _commanded(file, call_T, step_P)),
        reward=_numbers(file.column("step/reward")[step_P]),
        alterations=[int(each) for each in altered],
        runs=[
            RunView(source=source.name.lower(), first=first, after=after) for source, first, after in _runs(source_T)
        ],
        chunks=np.flatnonzero((call_T >= 0) & (np.diff(call_T, prepend=-1) != 0)).tolist(),
        cameras=[camera.name for camera in contract.cameras],
    )


def _commanded(file: EpisodeFile, call_T: NDArray[np.int32], step_P: NDArray[np.int64]) -> NDArray[Any]:
    """[P, D] the action of the chunk that was played; NaN where none was."""
    call_P, index_P = call_T[step_P], file.column("step/index")[step_P]
    played_P = call_P >= 0
    found = np.full((len(step_P), len(file.info.contract.action)), np.nan)
    if played_P.any():
        found[played_P] = file.column("call/chunk")[call_P[played_P], index_P[played_P]]
    return found


def _channels(fields: tuple[Field, ...], values: NDArray[Any]) -> list[ChannelView]:
    return [
        ChannelView(name=field.name, unit=field.unit, low=field.low, high=field.high, values=_numbers(values[:, at]))
        for at, field in enumerate(fields)
    ]


def _numbers(values: NDArray[Any]) -> list[float | None]:
    """Six digits are more than a plot shows; JSON has no word for NaN."""
    return [float(f"{each:.6g}") if np.isfinite(each) else None for each in values.tolist()]


def _runs(source_T: NDArray[np.uint8]) -> tuple[Any, ...]:
    return runs(source_T) if len(source_T) else ()
