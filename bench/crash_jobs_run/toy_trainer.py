"""A job that learns something in seconds, with the reports and checkpoints of real ones: `toy_trainer.py JOB_DIR`.

Actor, critic, their momenta, two generators and the step are in its state. It is numpy alone, so that a process starts
in tenths of a second; `tests/training/test_job_continuation.py` kills a real one. It holds a lock of its device that
has nothing to do with the lease: who finds it taken leaves a file that says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from pirl_server.atomic_files import read_json, sync, write_json
from pirl_server.jobs.reporter import PausedError, Reporter

STEPS, EVERY, STEP_S = 600, 25, 0.001
FOLDER, STATE, VIOLATION = "resume", "state.json", "violation.txt"


class Toy:
    """Actor and critic on random states, between two steps."""

    def __init__(self, seed: int) -> None:
        self._generators = {"noise": np.random.default_rng(seed), "env": np.random.default_rng(seed + 1)}
        draw = np.random.default_rng(seed + 2).normal
        self.step, self._tensors = 0, {"actor": draw(size=(8, 4)), "critic": draw(size=8)}
        self._tensors |= {f"momentum of {name}": np.zeros_like(each) for name, each in self._tensors.items()}

    def advance(self) -> None:
        """One step of both."""
        state = self._generators["env"].normal(size=(16, 8))
        action = state @ self._tensors["actor"] + 0.1 * self._generators["noise"].normal(size=(16, 4))
        error = action - state[:, :4]
        value_error = state @ self._tensors["critic"] + np.square(error).mean(1)
        for name, gradient in (("actor", state.T @ error / 16), ("critic", state.T @ value_error / 16)):
            momentum = self._tensors[f"momentum of {name}"]
            momentum *= 0.9
            momentum += gradient
            self._tensors[name] -= 1e-3 * momentum
        self.step += 1

    def save(self, folder: Path) -> None:
        """Replace the state that is there, the JSON file last."""
        folder.mkdir(exist_ok=True)
        name, staged = f"state-{self.step}.safetensors", folder / ".staged"
        save_file(self._tensors, staged)
        sync(staged)
        os.replace(staged, folder / name)
        sync(folder)
        write_json(folder / STATE, {"step": self.step, "tensors": name, "generators": self._states()})
        for old in folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def load(self, folder: Path) -> None:
        """Continue from the state that is there."""
        if not (folder / STATE).exists():
            return
        values = read_json(folder / STATE)
        self.step, self._tensors = values["step"], load_file(folder / values["tensors"])
        for name, generator in self._generators.items():
            generator.bit_generator.state = values["generators"][name]

    def digest(self) -> str:
        """Of every bit of the state."""
        tensors = b"".join(name.encode() + each.tobytes() for name, each in sorted(self._tensors.items()))
        return hashlib.sha256(tensors + json.dumps(self._states(), sort_keys=True).encode()).hexdigest()[:16]

    def _states(self) -> dict[str, Any]:
        return {name: each.bit_generator.state for name, each in self._generators.items()}


def undisturbed(seed: int) -> str:
    """Digest of a run that is left alone."""
    toy = Toy(seed)
    while toy.step < STEPS:
        toy.advance()
    return toy.digest()


def witness(folder: Path, device: str) -> None:
    """Hold the device's lock until the end of this process, or say that another process does."""
    descriptor = os.open(folder / f"witness-{device}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        (folder / VIOLATION).write_text(f"{device} was taken\n")


def train(directory: Path) -> None:
    """Be the job of this folder."""
    with Reporter(directory, resumable=True) as report:
        witness(directory.parent.parent, json.loads((directory / "state.json").read_text())["device"])
        toy = Toy(json.loads((directory / "spec.json").read_text())["seed"])
        toy.load(directory / FOLDER)
        while toy.step < STEPS and not report.cancelled:
            toy.advance()
            time.sleep(STEP_S)
            if toy.step % EVERY == 0 or report.paused:
                toy.save(directory / FOLDER)
                report.progress(toy.step, STEPS, "steps")
            if report.paused:
                raise PausedError
        report.result({"digest": toy.digest()})


if __name__ == "__main__":
    train(Path(sys.argv[1]))
