"""The page with the measures of success models, beside their controls."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pirl_server.registry.wilson import wilson_interval

MEANS = ("auc", "accuracy", "calibration_error", "calibration_error_uncalibrated")
"""of which the mean over seeds is shown"""
HEAD = """# A success model on PushCube's last images

Reproduce: `python {command}`. Python {python}, torch {torch}, one thread.

Per seed {episodes} attempts of the simulated Panda, each with the rendered last image (64 pixels) and what the
simulator says of it (seed {seed}: {successes} successes, {failures} failures). Half are the scripted expert's; the
others are its attempts stopped early, shaken by noise or bent to one side, which mostly fail. Half of the episodes are
learnt, a quarter calibrates, a quarter tests: every number of the first table is of test episodes. The state is not
read: in simulation it holds the cube's place.

The backbone is a ViT of 4 layers and width 64 with **random** weights, since no published one could be downloaded where
this ran: the numbers say that the method works, not how good a trained backbone is. Controls: labels shuffled among all
episodes, and images painted over in one colour; what is left to those is the instruction, of which the task has
several. Each of the {seeds} seeds has initial states of its own.
"""


def write_page(path: Path, found: Sequence[dict[str, Any]], cases: Sequence[str], command: str) -> None:
    """Write the tables: each seed, the means, and the reliability of the first case over all seeds."""
    names = ("episodes", "seed", "successes", "failures")
    head = HEAD.format(
        command=command, python=platform.python_version(), torch=torch.__version__,
        seeds=len({each["seed"] for each in found}), **{name: found[0][name] for name in names},
    )  # fmt: skip
    tables = [*_measures(found, cases), "", *_proposals(found, cases), "", *_reliability(found, cases[0])]
    path.write_text("\n".join([head, *tables]) + "\n")


def _measures(found: Sequence[dict[str, Any]], cases: Sequence[str]) -> list[str]:
    lines = [
        "| learns from | seed | AUC (95 %) | accuracy | calibration error | before the temperature | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in cases:
        mine = [each for each in found if each["case"] == name]
        lines += [
            f"| {name} | {row['seed']} | {row['auc']:.3f} ({row['auc_low']:.3f} to {row['auc_high']:.3f}) |"
            f" {row['accuracy']:.3f} | {row['calibration_error']:.3f} |"
            f" {row['calibration_error_uncalibrated']:.3f} | {row['learn_s']:.0f} |"
            for row in mine
        ]
        mean = {key: float(np.mean([row[key] for row in mine])) for key in MEANS}
        lines.append(
            f"| **{name}** | mean | **{mean['auc']:.3f}** | {mean['accuracy']:.3f} | {mean['calibration_error']:.3f} |"
            f" {mean['calibration_error_uncalibrated']:.3f} | |"
        )
    return lines


def _proposals(found: Sequence[dict[str, Any]], cases: Sequence[str]) -> list[str]:
    lines = [
        "Then each model proposes labels for further attempts, whose outcomes it is not given, from the threshold on",
        "that its calibration episodes gave for 95 % accuracy:",
        "",
        "| learns from | further attempts | proposed | right | 95 % |",
        "|---|---|---|---|---|",
    ]
    for name in cases:
        mine = [each for each in found if each["case"] == name]
        further, proposed, right = (sum(row[key] for row in mine) for key in ("further", "proposed", "proposed_right"))
        low, high = wilson_interval(right, proposed) if proposed else (0.0, 0.0)
        rate = f"{right} ({right / proposed:.3f}) | {low:.3f} to {high:.3f}" if proposed else "- | -"
        lines.append(f"| {name} | {further} | {proposed} | {rate} |")
    return lines


def _reliability(found: Sequence[dict[str, Any]], name: str) -> list[str]:
    """Bins of all seeds put together."""
    bins: dict[float, list[tuple[int, float, float]]] = {}
    for row in found:
        if row["case"] == name:
            for each in row["reliability"]:
                bins.setdefault(each["low"], []).append((each["episodes"], each["predicted"], each["observed"]))
    lines = [
        f"Reliability of '{name}', all seeds:",
        "",
        "| probability of success | episodes | predicted | observed |",
        "|---|---|---|---|",
    ]
    for low, parts in sorted(bins.items()):
        count = sum(part[0] for part in parts)
        predicted, observed = (sum(part[0] * part[column] for part in parts) / count for column in (1, 2))
        lines.append(f"| {low:.1f} to {low + 0.1:.1f} | {count} | {predicted:.2f} | {observed:.2f} |")
    return lines
