"""`pirl parity`: runs the model on golden files and reports the difference to the recorded outputs.

Shape letters: B batch, H horizon, D action dim.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pirl_server.algorithm.flow import euler_chain
from pirl_server.interchange.parity.golden import Golden, load_golden
from pirl_server.model.prefix import Prefix

SAMPLE_GATE, LOSS_GATE = 1e-5, 5e-5
"""largest absolute difference"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare this model's loss and samples with golden files: 0 within the gates, 1 past them, 2 for a bad file."""
    parser = argparse.ArgumentParser(prog="pirl parity", description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="safetensors with weights/, in/ and out/")
    return max(_report(path) for path in parser.parse_args(arguments).files)


def _report(path: Path) -> int:
    try:
        differences = compare(load_golden(path))
    except ValueError as error:
        print(f"pirl parity: '{path}': {error}", file=sys.stderr)
        return 2
    status = 0
    for name, difference in differences.items():
        gate = LOSS_GATE if name == "loss" else SAMPLE_GATE
        passed = difference <= gate  # false for NaN
        print(f"{path}  {name:<10} {difference:.2e}  gate {gate:.0e}  {'ok' if passed else 'FAILED'}")
        status = status if passed else 1
    return status


@torch.inference_mode()
def compare(golden: Golden) -> dict[str, float]:
    """Largest absolute difference of every recorded output: "loss", "sample_K".

    Samples are drawn by the denoiser and by plain velocities; the worse counts.
    """
    prefix = golden.model.encode_prefix(**golden.prefix)  # type: ignore[arg-type]
    differences = {}
    if golden.loss is not None:
        differences["loss"] = _distance(loss(golden, prefix), golden.loss)
    for steps, recorded in sorted(golden.samples.items()):
        served = euler_chain(golden.model.denoiser(prefix, golden.state, steps), golden.noise, steps)[:, -1]
        plain = euler(golden, prefix, steps)
        differences[f"sample_{steps}"] = max(_distance(served, recorded), _distance(plain, recorded))
    return differences


def loss(golden: Golden, prefix: Prefix) -> Tensor:
    """Unreduced flow-matching error [B, H, D] at the recorded times."""
    t = golden.time[:, None, None]
    x_BHD = t * golden.noise + (1.0 - t) * golden.actions
    v_BHD = golden.model.velocity(prefix, golden.state, x_BHD, golden.time)
    return (v_BHD - (golden.noise - golden.actions)) ** 2


def euler(golden: Golden, prefix: Prefix, steps: int) -> Tensor:
    """Chunk [B, H, D] by K Euler steps of the velocity that training uses."""
    velocity = partial(golden.model.velocity, prefix, golden.state)
    x_BHD = golden.noise
    for k in range(steps):
        x_BHD = x_BHD - velocity(x_BHD, torch.full_like(golden.time, 1.0 - k / steps)) / steps
    return x_BHD


def _distance(ours: Tensor, recorded: Tensor) -> float:
    return float((ours.double() - recorded.double()).abs().max())


if __name__ == "__main__":
    sys.exit(main())
