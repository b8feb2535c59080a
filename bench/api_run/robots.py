"""Robots that ask for chunks, in a process of their own: `python robots.py ADDRESS TOKEN COUNT RATE_HZ`.

A line on stdin begins a count; the next one ends it, and is answered with a JSON object. Ends with stdin.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "doors_run"))

from whole import observation

from pirl_contract.client import PolicyClient


class Driven:
    """One robot at a rate, on its own thread."""

    def __init__(self, address: str, token: str, name: str, rate_hz: float) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._client = PolicyClient(address, name, 30.0, encoding="shared_memory", token=token)
        info = self._client.info()
        self._observation = observation(info.contract, info.instructions[0], name)
        self._period, self.over = 1 / rate_hz, threading.Event()
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.over.set()
        self._thread.join()
        self._client.close()

    def _drive(self) -> None:
        due = time.monotonic()
        while not self.over.is_set():
            began = time.monotonic()
            try:
                self._client.infer(self._observation)
                self.seconds.append(time.monotonic() - began)
            except (OSError, ValueError) as error:
                self.failures.append(str(error))
            due = max(due + self._period, time.monotonic() - self._period)
            self.over.wait(max(0.0, due - time.monotonic()))


def count(robots: list[Driven], seconds: float) -> dict[str, Any]:
    times = [1000 * each for robot in robots for each in robot.seconds]
    p50, p99 = np.percentile(times or [0.0], (50, 99)).tolist()
    failures = sum(len(robot.failures) for robot in robots)
    return {"chunks": len(times), "hz": len(times) / seconds, "failures": failures, "p50_ms": p50, "p99_ms": p99}


def main(address: str, token: str, number: str, rate_hz: str) -> None:
    robots = [Driven(address, token, f"arm-{each}", float(rate_hz)) for each in range(int(number))]
    print("ready", flush=True)
    began = 0.0
    for line in sys.stdin:
        if line.strip() == "begin":
            for robot in robots:
                robot.seconds, robot.failures = [], []
            began = time.monotonic()
        else:
            print(json.dumps(count(robots, time.monotonic() - began)), flush=True)
    for robot in robots:
        robot.over.set()
    for robot in robots:
        robot.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
