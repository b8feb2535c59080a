"""The loop of one implementation's process: JSON requests on stdin, JSON replies on stdout, one line each.

A request {"case", "cameras", "as_robots_have_it", "steps", "repeats"} is answered by {"chunk", "wall_ms", "cpu_ms"}:
the chunk of the last repeat, and every repeat's wall and CPU time. An end of file ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from case import Case, Scene, scene
from torch import Tensor


class Model(Protocol):
    """One implementation with one case's weights."""

    def prepare(self, scene: Scene) -> Any:
        """Arguments in the implementation's own form: not timed."""

    def sample(self, prepared: Any, steps: int) -> Tensor:
        """One chunk [1, H, D] from the scene's noise by `steps` Euler steps, through the usual entry point."""


@torch.inference_mode()
def answer(model: Model, asked: Scene, steps: int, repeats: int) -> dict[str, Any]:
    """Time `repeats` chunks."""
    prepared = model.prepare(asked)
    wall_ms, cpu_ms = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        chunk = model.sample(prepared, steps)
        wall_ms.append(1e3 * (time.perf_counter() - wall))
        cpu_ms.append(1e3 * (time.process_time() - cpu))
    return {"chunk": chunk.tolist(), "wall_ms": wall_ms, "cpu_ms": cpu_ms}


def serve(build: Callable[[Case], Model]) -> None:
    """Answer until stdin ends. The first argument is the number of threads."""
    torch.set_num_threads(int(sys.argv[1]))
    # What libraries print must not stand between the replies.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"ready": torch.__version__}), file=replies)
    model, case, path = None, None, ""
    for line in sys.stdin:
        request = json.loads(line)
        if model is None or case is None or path != request["case"]:
            path, case = request["case"], Case.read(request["case"])
            model = build(case)
        asked = scene(case, request["cameras"], as_robots_have_it=request["as_robots_have_it"])
        print(json.dumps(answer(model, asked, request["steps"], request["repeats"])), file=replies)
