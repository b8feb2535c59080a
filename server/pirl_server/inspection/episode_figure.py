"""Figures of an episode: commanded against executed with all chunks, ages, values, alterations by kind, who drove.

Shape letters: T steps, D action.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pirl_server.episodes.schema import Episode
from pirl_server.inspection.colours import SOURCE_COLOURS
from pirl_server.inspection.timeline import Timeline, alteration_table, chunk_starts, timeline

CHUNK_COLOURS = ("#1f4e79", "#5b9bd5")
"""of chunks, in turn: where neighbours overlap each can be followed"""


def save_episode_figure(path: Path, episode: Episode) -> None:
    """Write a figure of the whole episode. Raises ValueError for one without a step, OSError."""
    line, entries = timeline(episode), episode.info.contract.action
    panels = [_ages]
    if np.isfinite(np.asarray(episode.calls.value)).any():
        panels.append(_values)
    if alteration_table(episode):
        panels.append(_alterations)
    heights = [2.0] * len(entries) + [1.6] * len(panels)
    figure = Figure(figsize=(12.0, 1.0 + 0.75 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for entry, axis in enumerate(axes[: len(entries)]):
        _entry(axis, episode, line, entry)
    for panel, axis in zip(panels, axes[len(entries) :]):
        panel(axis, episode, line)
    for axis in axes:
        _sources(axis, line)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.01)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel(f"step (at {episode.info.contract.rate_hz:g} Hz)")
    figure.suptitle(_title(episode, line), fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def _title(episode: Episode, line: Timeline) -> str:
    info = episode.info
    outcome = {True: "success", False: "failure", None: "unlabelled"}[info.success]
    taken = sum(after - first for first, after in line.takeovers)
    takeovers = f", {len(line.takeovers)} takeovers of {taken} steps" if taken else ""
    return f"{info.robot_id}: {info.instruction} ({outcome}); {len(episode.calls.step)} decisions{takeovers}"


def _entry(axis: Any, episode: Episode, line: Timeline, entry: int) -> None:
    """Each chunk over the steps that it was for, also where it was not played, what was executed, and the limits."""
    field, chunk = episode.info.contract.action[entry], np.asarray(episode.calls.chunk)[:, :, entry]
    starts = chunk_starts(episode)
    for number, (start, actions) in enumerate(zip(starts, chunk)):
        if start < 0:
            continue
        label = "chunks as drawn" if number == int(np.flatnonzero(starts >= 0)[0]) else None
        at = start + np.arange(len(actions))
        axis.plot(at, actions, color=CHUNK_COLOURS[number % 2], linewidth=0.8, alpha=0.8, label=label)
    axis.plot(line.commanded[:, entry], ".", color=CHUNK_COLOURS[0], markersize=4, label="of these played")
    executed = episode.steps.executed[:, entry]
    axis.plot(executed, color="black", linewidth=1.2, label="executed")
    altered = np.flatnonzero(episode.steps.alterations)
    axis.plot(altered, executed[altered], "x", color="#c0392b", markersize=5, label="altered")
    low, high = axis.get_ylim()
    for limit in (field.low, field.high):
        if limit is not None and low < limit < high:
            axis.axhline(limit, color="#c0392b", linewidth=0.7, linestyle="--")
    axis.set_ylabel(f"{field.name}\n[{field.unit}]", fontsize=8)
    axis.set_xlim(-0.5, len(executed) - 0.5)


def _ages(axis: Any, episode: Episode, line: Timeline) -> None:
    """Age of the observation behind each action, where the clock is known, and the server's latency of each call."""
    if np.isfinite(line.age_ms).any():
        axis.plot(line.age_ms, color="#555555", linewidth=1.0, label="age of the observation")
    played = episode.calls.step >= 0
    axis.plot(episode.calls.step[played], episode.calls.latency_ms[played], "v", color="#8e44ad", markersize=4,
              label="latency on the server")  # fmt: skip
    axis.set_ylabel("ms", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, loc="upper right")


def _values(axis: Any, episode: Episode, line: Timeline) -> None:
    played = episode.calls.step >= 0
    axis.plot(episode.calls.step[played], episode.calls.value[played], marker="o", color="#16a085", markersize=3)
    axis.set_ylabel("value", fontsize=8)


def _alterations(axis: Any, episode: Episode, line: Timeline) -> None:
    """One line per kind, a mark per step."""
    table = alteration_table(episode)
    for place, there in enumerate(table.values()):
        at = np.flatnonzero(there)
        axis.plot(at, np.full(len(at), place), "|", color="#c0392b", markersize=8)
    names = [f"{name} ({int(there.sum())})" for name, there in table.items()]
    axis.set_yticks(range(len(table)), names, fontsize=7)
    axis.set_ylim(len(table) - 0.5, -0.5)


def _sources(axis: Any, line: Timeline) -> None:
    """Who drove, as the background, and a line where a chunk begins."""
    for source, first, after in line.runs:
        axis.axvspan(first - 0.5, after - 0.5, color=SOURCE_COLOURS[source.name.lower()], alpha=0.10, linewidth=0)
    for step in np.flatnonzero(line.begins):
        axis.axvline(step - 0.5, color="#999999", linewidth=0.5, linestyle=":")
