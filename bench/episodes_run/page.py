"""The figures as a page."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any

HEAD = """# Episodes: written, and read for training

Reproduce: `docker/install_oracles.sh`, then `python bench/episodes.py{quick} --write docs/results/episodes.md`.
This page was written by that command: {date}, {cores} cores that other work shared, load average {load} at its end;
Python {python}, zarr {zarr}, h5py {h5py}, PyAV {av}; lerobot 0.6.1 in an environment of its own, where torchcodec finds
no FFmpeg libraries here, so that it decodes with PyAV, its own second choice.

{episodes} episodes of {steps} steps with two cameras of {side} x {side} pixels, a call and a state for each, of a
moving scene with sensor noise. Every layout runs in a process of its own and all take turns. What is read lies in the
page cache.

- `pirl`: `episode.zarr.zip`, images raw; `pirl-jpeg`: with `--image-codec`
- `before`: the build of 9f9f3e9, a directory of Zarr files
- `hdf5`: a file per episode, a chunk and a Fletcher-32 per image
- `zarr buffer`: growing arrays of all episodes in chunks of 2 MB with LZ4, as Diffusion Policy keeps them
- `parquet + video`: pyarrow and AV1, a key image every second one
- `lerobot`: `LeRobotDataset`, recorded frame by frame and read by `delta_timestamps`
"""

WRITING = """From the end of an episode to the moment at which it is on the disk. JPEG is encoded call by call before
(see *Adding a call*); lerobot's images are written by its threads before, and encoded here, as `parquet + video` does.
lerobot does not force what it wrote to the disk."""

READING = """Images of both cameras and the states of these steps. pirl compares every byte that it returns with a
check, `hdf5` its images, the others nothing. Video is lossy: see the mean error of a pixel, in values of 0 to 255."""

LONG = """## A long episode

10,000 steps and calls with two cameras of 96 pixels, {raw} MiB of images, recorded with 32 MiB for the robot, published
in {end} s and read back in windows of 16: the process grew by {memory} MiB at most.
"""

COMMIT = ("commit", "commit p99", "commit CPU", "MB an episode", "entries an episode", "mean error of a pixel")
READ = ("image", "image p99", "window", "window p99", "whole", "windows a second")


def table(figures: dict[str, dict[str, Any]], columns: tuple[str, ...], heads: tuple[str, ...]) -> str:
    rows = [[shown(found[column]) for column in columns] for found in figures.values()]
    return lines(list(figures), heads, rows)


def shown(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def targets(figures: dict[str, dict[str, Any]], others: dict[str, Any]) -> list[tuple[str, str, float, bool]]:
    """What was aimed at, the aim, what was measured, and whether that was reached."""
    found = list[tuple[str, str, float, bool]]()

    def add(name: str, aim: str, value: float, reached: bool) -> None:
        found.append((name, aim, value, reached))

    for name in ("pirl", "pirl-jpeg"):
        if name in figures and "lerobot" in figures:
            ours, theirs = figures[name], figures["lerobot"]
            for column, value in (
                ("window", theirs["window"] / ours["window"]),
                ("training batches", ours["windows a second"] / theirs["windows a second"]),
            ):
                add(f"{column}, times as fast as lerobot's, {name}", "4", value, value >= 4)
    if "pirl" in figures and "before" in figures:
        share = figures["pirl"]["commit"] / figures["before"]["commit"]
        add("commit, share of the build before", "0.5", share, share <= 0.5)
    for name, values in others["enqueue"].items():
        add(f"adding a call, ms, p99, {name}", "1", values[3], values[3] < 1)
    small = others["small"]
    if "pirl" in small:
        add("small episode: entries", "20", small["pirl"]["entries"], small["pirl"]["entries"] <= 20)
        add("small episode: KiB", "100", small["pirl"]["bytes"] / 1024, small["pirl"]["bytes"] <= 100 * 1024)
    if {"pirl", "before"} <= small.keys():
        share = small["pirl"]["read CPU ms"] / small["before"]["read CPU ms"]
        add("small episode: CPU to read, share of the build before", "0.2", share, share <= 0.2)
    return found


def page(figures: dict[str, dict[str, Any]], others: dict[str, Any], sizes: dict[str, Any], quick: bool) -> str:
    facts = {name: version(name) for name in ("zarr", "h5py", "av")}
    facts |= {"python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}
    parts = [HEAD.format(quick=" --quick" if quick else "", cores=len(os.sched_getaffinity(0)), **facts, **sizes)]
    aims = [[aim, shown(value), "yes" if reached else "no"] for _, aim, value, reached in targets(figures, others)]
    names = [name for name, *_ in targets(figures, others)]
    parts.append("## Aims\n\n" + lines(names, ("aim", "measured", "reached"), aims))
    heads = ("commit ms, median", "p99", "CPU ms", "MB an episode", "entries", "mean error of a pixel")
    parts.append(f"## Writing\n\n{WRITING}\n\n" + table(figures, COMMIT, heads))
    heads = (
        "one step, ms",
        "p99",
        "16 steps, ms",
        "p99",
        "whole episode, ms",
        "random windows of 16 a second, 2 workers",
    )
    parts.append(f"## Reading\n\n{READING}\n\n" + table(figures, READ, heads))
    rows = [[shown(each) for each in values] for values in others["enqueue"].values()]
    heads = ("codec, median", "p99", "adding, median", "p99")
    said = "What the server does between a request and its reply for two images, in ms."
    parts.append(f"## Adding a call\n\n{said}\n\n" + lines(list(others["enqueue"]), heads, rows))
    names = ["entries", "bytes", "write ms", "write CPU ms", "read CPU ms"]
    rows = [[shown(found[each]) for each in names] for found in others["small"].values()]
    said = "10 calls, two cameras of 16 pixels."
    parts.append(f"## A small episode\n\n{said}\n\n" + lines(list(others["small"]), tuple(names), rows))
    if "long" in others:
        values = {name: shown(value) for name, value in others["long"].items()}
        memory = values["memory above the start MiB"]
        parts.append(LONG.format(raw=values["raw MiB"], end=values["end s"], memory=memory))
    return "\n".join(parts)


def lines(names: list[str], heads: tuple[str, ...], rows: list[list[str]]) -> str:
    head = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    return "\n".join([*head, *(f"| {name} | " + " | ".join(row) + " |" for name, row in zip(names, rows))]) + "\n"
