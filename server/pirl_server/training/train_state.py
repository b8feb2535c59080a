"""All that a run needs to continue as if it had not stopped: parameters, optimisers, random generators and counters.

FOLDER/state.json               step, seed, counters, learning rates, and the name of the file that belongs to them
FOLDER/state-STEP.safetensors   parameters, optimiser moments, generator states

The JSON file is replaced last, so that a crash leaves the old state or the new one. Nothing is unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pirl_server.atomic_files import read_json, sync, write_json

STATE = "state.json"
PARAMETER, OPTIMIZER, GENERATOR = "parameter/", "optimizer/", "generator/"

Counters = Mapping[str, Any]
"""JSON values by name"""


@dataclass(frozen=True)
class TrainParts:
    """The live objects of a run. `TrainState.restore` changes them in place."""

    parameters: Mapping[str, Tensor]
    """everything that learns, and averages of it"""
    optimizers: Mapping[str, torch.optim.Optimizer]
    generators: Mapping[str, torch.Generator]


@dataclass(frozen=True)
class TrainState:
    """A run between two steps."""

    step: int
    """gradient steps or updates done"""
    seed: int
    """of the run"""
    counters: Counters
    rates: Mapping[str, list[float]]
    """learning rates of each optimiser's groups"""
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, parts: TrainParts, step: int, seed: int, counters: Counters) -> TrainState:
        """Copy the parts."""
        tensors = {PARAMETER + name: tensor for name, tensor in parts.parameters.items()}
        for name, optimizer in parts.optimizers.items():
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{OPTIMIZER}{name}/{index}/{key}": value for key, value in moments.items()}
        tensors |= {GENERATOR + name: generator.get_state() for name, generator in parts.generators.items()}
        rates = {name: [group["lr"] for group in each.param_groups] for name, each in parts.optimizers.items()}
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return cls(step, seed, counters, rates, copies)

    def restore(self, parts: TrainParts, seed: int) -> None:
        """Put parameters, moments and generators back. Raises ValueError for the state of another run."""
        if seed != self.seed:
            raise ValueError(f"the saved state is of a run with seed {self.seed}, this run has seed {seed}")
        self._restore_parameters(parts.parameters)
        for name, optimizer in parts.optimizers.items():
            self._restore_optimizer(name, optimizer)
        for name, generator in parts.generators.items():
            generator.set_state(self._tensor(GENERATOR + name))

    def _restore_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        saved = {name.removeprefix(PARAMETER) for name in self.tensors if name.startswith(PARAMETER)}
        if unknown := saved - parameters.keys():
            raise ValueError(f"the saved state is of another run: here, parameter '{min(unknown)}' does not learn")
        with torch.no_grad():
            for name, parameter in parameters.items():
                tensor = self._tensor(PARAMETER + name)
                if tensor.shape != parameter.shape:
                    shapes = f"{tuple(tensor.shape)}, here {tuple(parameter.shape)}"
                    raise ValueError(f"the saved state is of another run: parameter '{name}' is {shapes}")
                parameter.copy_(tensor)

    def _restore_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.tensors.items():
            if key.startswith(f"{OPTIMIZER}{name}/"):
                index, kind = key.removeprefix(f"{OPTIMIZER}{name}/").split("/")
                moments.setdefault(int(index), {})[kind] = tensor.clone()
        values = optimizer.state_dict()
        for group, rate in zip(values["param_groups"], self.rates[name], strict=True):
            group["lr"] = rate
        optimizer.load_state_dict(values | {"state": moments})

    def _tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"the saved state is of another run: it has no {name.replace('/', ' ', 1)}")
        return self.tensors[name]


@dataclass(frozen=True)
class TrainStateFolder:
    """Where a run keeps its last state, and how often it writes one."""

    path: Path
    every: int
    """steps between two states"""

    def due(self, step: int) -> bool:
        """Whether a state is written after this step."""
        return step % self.every == 0

    def save(self, state: TrainState) -> None:
        """Replace the state that is there."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = f"state-{state.step}.safetensors"
        staged = self.path / f".{name}.{os.getpid()}"
        save_file(dict(state.tensors), staged)
        sync(staged)
        os.replace(staged, self.path / name)
        sync(self.path)
        values = {"step": state.step, "seed": state.seed, "counters": state.counters, "rates": state.rates}
        write_json(self.path / STATE, {**values, "tensors": name})
        for old in self.path.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def load(self) -> TrainState | None:
        """The last state; None before the first. Raises ValueError for one that can't be read."""
        try:
            values = read_json(self.path / STATE)
        except FileNotFoundError:
            return None
        try:
            tensors = load_file(self.path / Path(values["tensors"]).name)
            return TrainState(values["step"], values["seed"], values["counters"], values["rates"], tensors)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"'{self.path / STATE}' can't be read: {error}") from error
