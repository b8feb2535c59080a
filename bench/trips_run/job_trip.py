"""A fine-tuning job's specification from POST /v1/jobs to the training loop, the job's process run in this one."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi.testclient import TestClient
from tiny_server import TASK, tiny_server
from tracer import Trip

from pirl_server import job_main
from pirl_server.paths import JOBS

CONFIGS = ("pirl_server.config.", "pirl_server.jobs.spec", "pirl_server.training.experiment")
"""modules whose values are a specification or a config"""
LOCAL = "http://127.0.0.1"
SPEC = {"kind": "finetune_sim", "task": TASK, "seed": 1}
LOOP = "training/sim_rl/finetune.py"
ENDED = ("succeeded", "failed", "cancelled")


def trace() -> Trip:
    """Post the job, then run what its process would run, until the loop is called."""
    trip, before = Trip(wanted=_given_a_config, until=_is_the_loop), signal.getsignal(signal.SIGTERM)
    with tiny_server() as (api, _, root), trip.traceable(), TestClient(api, LOCAL, client=("127.0.0.1", 1)) as rest:
        with trip.recording():
            job = rest.post("/v1/jobs", json=SPEC).raise_for_status().json()
        rest.post(f"/v1/jobs/{job['id']}/cancel")  # its own process is not needed
        while rest.get(f"/v1/jobs/{job['id']}").json()["status"] not in ENDED:
            time.sleep(0.05)
        folder = root.parent / "job"
        folder.mkdir()
        shutil.copy(root / JOBS / job["id"] / "spec.json", folder)
        try:
            with trip.recording(), suppress(SystemExit):
                job_main.run(root, folder)
        finally:
            signal.signal(signal.SIGTERM, before)
        if not trip.reached:
            raise RuntimeError(f"the job ended before {LOOP}: {_error(folder)}")
    return trip


def _is_the_loop(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith(LOOP)


def _given_a_config(frame: FrameType) -> bool:
    code = frame.f_code
    return any(
        _holds(frame.f_locals.get(name)) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    )


def _holds(value: Any) -> bool:
    """Whether it is a specification or a config, or a record with one in it."""
    if _is_config(value):
        return True
    if isinstance(value, dict):
        return "kind" in value and "task" in value
    if not is_dataclass(value) or isinstance(value, type):
        return False
    return any(_is_config(getattr(value, field.name, None)) for field in fields(value))


def _is_config(value: Any) -> bool:
    return type(value).__module__.startswith(CONFIGS)


def _error(folder: Path) -> str:
    file = folder / "error.txt"
    return file.read_text() if file.exists() else "no error"
