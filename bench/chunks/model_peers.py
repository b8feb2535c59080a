"""The processes that compute: ours and each installed peer's, asked in turn so that one computes at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = {"ours": "ours.py", "transformers": "transformers_pi0.py", "lerobot": "lerobot_models.py"}
FAMILIES = {"ours": ("pi0", "pi05", "smolvla"), "transformers": ("pi0",), "lerobot": ("pi0", "pi05", "smolvla")}
HERE = Path(__file__).resolve().parents[1]


def default_folder() -> Path:
    """Where docker/install_oracles.sh puts the peers' environments, unless PIRL_ORACLES says otherwise."""
    return Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles"))


def pythons(folder: Path) -> dict[str, str]:
    """Interpreter by implementation; a peer that is not installed is left out, with the reason on stderr."""
    found = {"ours": sys.executable}
    for peer in ("transformers", "lerobot"):
        python = folder / peer / "bin/python"
        if python.exists():
            found[peer] = str(python)
        else:
            print(f"{peer} skipped: no {python}; docker/install_oracles.sh makes it", file=sys.stderr)
    return found


@dataclass(frozen=True)
class Worker:
    """One implementation's process; see `peers/serve.py` for what it answers."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, **request: Any) -> dict[str, Any]:
        """One reply. Raises RuntimeError when the process ended; why stands on stderr."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.reply()

    def reply(self) -> dict[str, Any]:
        """Wait for the next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.name} ended with exit status {self.process.wait()}")
        return dict(json.loads(line))


def start(stack: ExitStack, found: dict[str, str], threads: int) -> dict[str, Worker]:
    """Start all, wait until each has imported what it needs. They end with the stack."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    workers = {}
    for name, python in found.items():
        # A peer's interpreter must not find the packages of this one.
        own = environment if name == "ours" else {k: v for k, v in environment.items() if k != "PYTHONPATH"}
        process = stack.enter_context(
            subprocess.Popen(
                [python, str(HERE / "peers" / SCRIPTS[name]), str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own,
            )
        )  # fmt: skip
        workers[name] = Worker(name, process)
    for worker in workers.values():
        worker.reply()
    return workers
