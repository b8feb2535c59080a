"""`pirl serve` of the shipped checkpoint, as a process with ports of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from patience import Patience, patient
from process_tree import WAIT_S

import pirl_server
from pirl_contract import Contract, Observation

CHECKPOINT = Path(pirl_server.__path__[0]) / "checkpoints" / "pushcube-base"
CARD = json.loads((CHECKPOINT / "card.json").read_text())
CONTRACT = Contract.from_json(json.dumps(CARD["contract"]))
INSTRUCTION = CARD["instructions"][0]
ENDLESS = 10**12
"""optimiser steps: of a millisecond, 30 years"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def observe(robot_id: str) -> Observation:
    image = np.zeros((64, 64, 3), np.uint8)
    return Observation({"base": image}, np.zeros(CONTRACT.state_dim, np.float32), INSTRUCTION, robot_id, 1000)


class ServeProcess:
    """A context: killed at its end, if it lives then."""

    def __init__(self, root: Path, *options: str, checkpoint: bool = True, log: Path | None = None) -> None:
        self.root, self.grpc_port, self.rest_port = root, free_port(), free_port()
        self.log = log or root.parent / f"serve-{self.rest_port}.log"
        words = [
            sys.executable,
            "-m",
            "pirl_contract.commands.cli",
            "serve",
            *([str(CHECKPOINT)] if checkpoint else []),
        ]
        words += ["--root", str(root), "--grpc-port", str(self.grpc_port), "--rest-port", str(self.rest_port), *options]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.web = httpx.Client(base_url=f"http://127.0.0.1:{self.rest_port}", timeout=patient(WAIT_S))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def wait_until_serving(self) -> ServeProcess:
        patience = Patience(WAIT_S)
        while patience.left_s > 0:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self.web.get("/v1/info").json()["policy_version"]:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def start_job(self, **spec: Any) -> str:
        """Start a job and return its id."""
        answer = self.web.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def start_endless_job(self) -> str:
        """Start a job that is running until somebody stops it, however slow the machine; return its id."""
        config = {"preset": "tiny-state", "demonstrations": 1, "steps": ENDLESS}
        return self.start_job(kind="sft", task="PushCube-v1", config=config)

    def job(self, job_id: str) -> dict[str, Any]:
        """Read a job's state from the disk."""
        return dict(json.loads((self.root / "jobs" / job_id / "state.json").read_text()))

    def __enter__(self) -> ServeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.web.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
