"""The measured processes: started, pinned, asked; they end with the stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent


def cores() -> tuple[int, int]:
    """The core of every server and the core of every client; the same one on a machine with a single core."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[1 % len(allowed)]


@dataclass(frozen=True)
class Process:
    """One worker; see `worker.py` for what it is told."""

    name: str
    popen: subprocess.Popen[str]
    errors: IO[str]

    def wait(self) -> Process:
        """Wait until it has imported what it needs. Raises RuntimeError with the end of its stderr."""
        try:
            self.reply()
        except RuntimeError as error:
            self.errors.seek(0)
            raise RuntimeError(f"{error}\n{self.errors.read()[-2000:]}") from None
        return self

    def ask(self, do: str, **request: Any) -> Any:
        """Return one reply. Raises RuntimeError with the worker's words, or when it ended."""
        self.tell(do, **request)
        return self.reply()

    def tell(self, do: str, **request: Any) -> None:
        """Ask without waiting: `reply` must follow."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.popen.stdin.flush()

    def reply(self) -> Any:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with exit status {self.popen.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply["result"]


def start(stack: ExitStack, script: str, core: int, python: str = sys.executable) -> Process:
    """Start a script of this folder on one core, in an empty folder; `Process.wait` must follow."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)  # a peer's interpreter must not find the packages of this one
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    errors = stack.enter_context((folder / "stderr").open("w+"))
    popen = subprocess.Popen(
        ["taskset", "-c", str(core), python, str(HERE / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
        cwd=folder,
    )
    stack.callback(_end, popen)
    return Process(script.removesuffix(".py"), popen, errors)


def _end(popen: subprocess.Popen[str]) -> None:
    popen.kill()
    popen.communicate()
