"""A replay as a figure: one decision entry by entry, or an episode decision by decision.

Shape letters: D action.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pirl_server.episodes.schema import Episode
from pirl_server.inspection.colours import SOURCE_COLOURS
from pirl_server.inspection.episode_replay import Replayed

STORED, OTHER = "#1f4e79", "#c0504d"


def save_replay_figure(path: Path, episode: Episode, results: Sequence[Replayed], other: str | None) -> None:
    """Write a figure of one decision in detail, or of several side by side. Raises OSError."""
    figure = _one(episode, results[0], other) if len(results) == 1 else _several(episode, results, other)
    figure.savefig(path, dpi=110)


def _one(episode: Episode, result: Replayed, other: str | None) -> Figure:
    entries = episode.info.contract.action
    columns = min(3, len(entries))
    lines = -(-len(entries) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.5 * lines + 0.9), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for entry, axis in enumerate(axes):
        if entry >= len(entries):
            axis.axis("off")
            continue
        _entry(axis, result, entry, other)
        axis.set_title(f"{entries[entry].name} [{entries[entry].unit}]", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[max(0, len(entries) - columns) : len(entries)]:
        axis.set_xlabel("action of the chunk", fontsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.suptitle(f"decision {result.decision.call} of episode {episode.info.id[:8]}", fontsize=10)
    return figure


def _entry(axis: Any, result: Replayed, entry: int, other: str | None) -> None:
    decision = result.decision
    if result.draws is not None:
        for draws, colour in zip(result.draws, (STORED, OTHER)):
            low, high = draws[:, :, entry].min(axis=0), draws[:, :, entry].max(axis=0)
            axis.fill_between(np.arange(len(low)), low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(decision.chunk[:, entry], color=STORED, marker=".", label=f"stored ({decision.version[:8]})")
    if result.other is not None:
        axis.plot(result.other[:, entry], color=OTHER, marker=".", label=f"same seed ({(other or '')[:8]})")
    for source in sorted(set(decision.source)):
        rows = [row for row, each in enumerate(decision.source) if each == source]
        at, values = decision.index[rows], decision.executed[rows, entry]
        axis.scatter(
            at, values, facecolors="none", edgecolors=SOURCE_COLOURS[source], s=36, label=f"executed: {source}"
        )
    altered = [row for row, names in enumerate(decision.alterations) if names]
    axis.scatter(decision.index[altered], decision.executed[altered, entry], marker="x", color="black", s=22,
                 label="altered" if altered else None)  # fmt: skip
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def _several(episode: Episode, results: Sequence[Replayed], other: str | None) -> Figure:
    figure = Figure(figsize=(9.0, 5.4 if other else 3.0), layout="constrained")
    if other is None:
        _reproduced(figure.subplots(), results)
    else:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _distances(upper, results)
        _heat(figure, lower, episode, results)
    figure.suptitle(f"episode {episode.info.id[:8]} drawn again" + (f" by {other[:12]}" if other else ""), fontsize=10)
    return figure


def _reproduced(axis: Any, results: Sequence[Replayed]) -> None:
    calls = [each.decision.call for each in results]
    largest = [np.nan if each.recorded is None else each.recorded.largest for each in results]
    axis.bar(calls, largest, color=STORED)
    axis.set_xlabel("call")
    axis.set_ylabel("largest difference\nto the stored chain")


def _distances(axis: Any, results: Sequence[Replayed]) -> None:
    calls = np.array([each.decision.call for each in results])
    axis.plot(
        calls, [each.same_seed for each in results], color="grey", marker=".", label="same seed, to the stored chunk"
    )
    tested = [each for each in results if each.apart is not None]
    if tested:
        at = [each.decision.call for each in tested]
        axis.plot(at, [each.apart.between for each in tested], color=OTHER, marker="o", label="between versions")  # type: ignore[union-attr]
        within = [each.apart.within for each in tested]  # type: ignore[union-attr]
        axis.fill_between(at, 0, within, color=STORED, alpha=0.2, label="within one version, by its noise")
        marked = [each for each in tested if each.differs and each.apart is not None]
        axis.scatter([each.decision.call for each in marked], [each.apart.between for each in marked],  # type: ignore[union-attr]
                     s=110, facecolors="none", edgecolors="black", label="differs by more than noise")  # fmt: skip
    axis.set_ylabel("distance of chunks\n(parts of the range)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)


def _heat(figure: Figure, axis: Any, episode: Episode, results: Sequence[Replayed]) -> None:
    """Mean difference of each entry over the actions that count, by call: where, and in which joint."""
    table = np.array([
        np.abs(each.other[list(each.counted)].astype(np.float64) - each.decision.chunk[list(each.counted)]).mean(axis=0)
        for each in results if each.other is not None
    ])  # fmt: skip
    peak = np.where(table.max(axis=0) > 0, table.max(axis=0), 1.0)
    first, last = results[0].decision.call, results[-1].decision.call
    edges = (first - 0.5, last + 0.5, len(peak) - 0.5, -0.5)
    shown = axis.imshow((table / peak).T, aspect="auto", cmap="Reds", vmin=0, vmax=1, extent=edges)
    names = [
        f"{entry.name} (max {value:.3g}{'' if entry.unit == '1' else f' {entry.unit}'})"
        for entry, value in zip(episode.info.contract.action, peak)
    ]
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xlabel("call")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(shown, ax=axis, label="mean difference\nof its maximum")
