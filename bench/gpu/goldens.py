"""The parity goldens on the device in float32: the largest difference per output, TF32 off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pirl_server.interchange.parity.golden import Golden, load_golden
from pirl_server.interchange.parity.parity import LOSS_GATE, SAMPLE_GATE, compare

FOLDER = Path(__file__).resolve().parents[2] / "tests/model/golden"


def moved(golden: Golden, device: torch.device) -> Golden:
    """The same numbers on the device."""

    def move(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to(device)

    return replace(
        golden,
        model=golden.model.to(device),
        prefix={name: move(value) for name, value in golden.prefix.items()},
        state=move(golden.state),
        noise=golden.noise.to(device),
        actions=golden.actions.to(device),
        time=golden.time.to(device),
        loss=move(golden.loss),
        samples={steps: sample.to(device) for steps, sample in golden.samples.items()},
    )


def check_goldens(device: torch.device) -> dict[str, float]:
    """Figures by name; the last one is 1 when all are within the gates of `pirl parity`, else 0."""
    figures: dict[str, float] = {}
    within = True
    for path in sorted(FOLDER.glob("*.safetensors")):
        for name, difference in compare(moved(load_golden(path), device)).items():
            figures[f"golden {path.stem}, {name}: difference"] = float(f"{difference:.1e}")
            within &= difference <= (LOSS_GATE if name == "loss" else SAMPLE_GATE)
    return figures | {"goldens within their gates": float(within)}
