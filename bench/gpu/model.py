"""Milliseconds per chunk of full-size pi0 and pi0.5 on a GPU, beside the roofline. Random weights, 3 cameras, bfloat16.

    python bench/gpu/model.py [--quick] [--json] [--preset pi0 pi05] [--device cuda|cpu]

Modes: eager; graph (the eager kernels at fixed shapes, replayed as CUDA graphs); compiled (torch.compile, CUDA graphs).
Every mode's chunk is compared with eager's. Latency is wall time from call to synchronised result, p50 and p95.
The goldens are checked first, in float32. Without CUDA it says so and ends with status 0; `--device cpu --preset tiny`
tries the script in float32 without compiling, and measures nothing of interest.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from full_size import Chunk, draw_inputs, eager, fixed_shapes, random_model
from goldens import check_goldens
from roofline import floor_ms, peak_of

from pirl_server.model.flow_model import ChunkInputs
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.model.pi0.presets import PRESETS

CAMERAS, STEPS = 3, 10
TEXT = {"pi0": 20, "pi05": 200}
"""pi0's instruction as it is; pi0.5's prompt with the state in it, at its longest"""


def percentiles(chunk: Chunk, device: torch.device, repeats: int) -> tuple[float, float]:
    """p50 and p95 in milliseconds."""
    times = []
    for turn in range(repeats + 3):
        start = time.perf_counter()
        chunk()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn >= 3:
            times.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    return float(p50), float(p95)


def modes(model: Pi0, inputs: ChunkInputs, device: torch.device) -> Iterator[tuple[str, Chunk]]:
    """What this device can do, eager first."""
    yield "eager", eager(model, inputs, STEPS)
    if device.type == "cuda":
        yield "graph", fixed_shapes(model, inputs, STEPS, "eager")
        yield "compiled", fixed_shapes(model, inputs, STEPS, "inductor")
    else:
        yield "fixed shapes", fixed_shapes(model, inputs, STEPS, "eager")


def measure(preset: str, batch: int, device: torch.device, *, quick: bool) -> dict[str, float]:
    """Figures of one model at one batch size."""
    config, label = PRESETS[preset](), f"{preset}, batch {batch}"
    model = random_model(config, device, narrow=device.type == "cuda")
    text = min(TEXT[config.family], config.max_tokens)
    inputs = draw_inputs(model, batch=batch, cameras=CAMERAS, text=text)
    figures = {f"{label}: parameters, millions": round(sum(p.numel() for p in model.parameters()) / 1e6, 1)}
    peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    least = floor_ms(config, peak, cameras=CAMERAS, text=text, batch=batch, steps=STEPS) if peak else None
    if least:
        figures[f"{label}: roofline ms"] = round(least, 2)
    reference = None
    for mode, chunk in modes(model, inputs, device):
        out = chunk().clone()
        reference = out if reference is None else reference
        p50, p95 = percentiles(chunk, device, 10 if quick else 50)
        figures[f"{label}, {mode}: p50 ms"], figures[f"{label}, {mode}: p95 ms"] = round(p50, 2), round(p95, 2)
        if least:
            figures[f"{label}, {mode}: times the roofline"] = round(p50 / least, 2)
        if mode != "eager":
            figures[f"{label}, {mode}: difference from eager"] = float((out - reference).abs().max())
        print(f"measured: {label}, {mode}", file=sys.stderr)
    return figures


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, batch 1")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--preset", nargs="+", choices=sorted(PRESETS), default=["pi0", "pi05"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no CUDA device", file=sys.stderr)
        return
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures = check_goldens(device)
    for preset in options.preset:
        for batch in (1,) if options.quick else (1, 8):
            figures |= measure(preset, batch, device, quick=options.quick)
            gc.collect()
            torch.cuda.empty_cache()
    print(
        json.dumps(figures)
        if options.json
        else "\n".join(f"{name:60}{value:>12.5g}" for name, value in figures.items())
    )


if __name__ == "__main__":
    main()
