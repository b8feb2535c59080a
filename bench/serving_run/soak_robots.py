"""Robots as they live: episodes with outcomes, discarded ones, connections that come and go; and robots in trouble."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
from payloads import ALL, INSTRUCTION
from proxy import Proxy
from worker import work

from pirl_contract import Contract, Observation, StepOutcome
from pirl_contract.client import PolicyClient

RATE_HZ, STEPS = 10.0, 20


class Life:
    """One robot's; counts what happened to it."""

    def __init__(self, port: int, payload: str, number: int) -> None:
        self.port, self.number, self.seen = port, number, Counter[str]()
        sizes = ALL[payload]
        self.observation = Observation(sizes.images(), sizes.state(), INSTRUCTION, f"robot-{number}")
        self.rng = np.random.default_rng(number)

    def live(self, until: float) -> None:
        """Connect, drive one to four episodes, disconnect, again and again."""
        while time.monotonic() < until:
            client = PolicyClient(f"127.0.0.1:{self.port}", f"robot-{self.number}", timeout_s=10.0)
            try:
                contract = client.info().contract
                for _ in range(int(self.rng.integers(1, 5))):
                    self._episode(client, contract, until)
            except Exception as error:  # counted by its kind and reported
                self.seen[f"failed: {type(error).__name__}: {error}"[:160]] += 1
            client.close()
            self.seen["connections"] += 1

    def _episode(self, client: PolicyClient, contract: Contract, until: float) -> None:
        client.start_episode(contract, INSTRUCTION)
        outcomes: list[StepOutcome] = []
        for _ in range(STEPS):
            if time.monotonic() > until:
                break
            due = time.monotonic() + 1 / RATE_HZ
            chunk = client.infer(self.observation, outcomes)
            self.seen["chunks"] += 1
            # every entry of a chunk is the number of the version that drew it
            self.seen["chunks of mixed versions"] += int((chunk.actions != chunk.actions[0, 0]).any())
            outcome = StepOutcome(
                chunk.chunk_id, 0, chunk.actions[0], self.observation.state, time_ns=time.monotonic_ns()
            )
            outcomes = [outcome]
            time.sleep(max(0.0, due - time.monotonic()))
        discard = bool(self.rng.integers(4))
        client.end_episode("success", "sim", "success", discard=discard, outcomes=() if discard else outcomes)
        self.seen["episodes discarded" if discard else "episodes published"] += 1


class Trouble:
    """Robots behind a bad wire: each asks, gives up after a second, and connects anew."""

    def __init__(self) -> None:
        self._proxy: Proxy | None = None
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, port: int, payload: str, mode: str, robots: int) -> None:
        """Connect through a good wire, then let it turn bad."""
        self._over.clear()
        self._proxy = Proxy(port)
        for number in range(robots):
            self._threads.append(threading.Thread(target=self._ask, args=(payload, number), daemon=True))
            self._threads[-1].start()
        time.sleep(0.5)
        self._proxy.mode = mode

    def end(self) -> None:
        assert self._proxy is not None
        self._over.set()
        self._proxy.mode = "forward"
        self._proxy.cut()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _ask(self, payload: str, number: int) -> None:
        assert self._proxy is not None
        sizes = ALL[payload]
        observation = Observation(sizes.images(), sizes.state(), INSTRUCTION, f"trouble-{number}")
        while not self._over.is_set():
            client = PolicyClient(f"127.0.0.1:{self._proxy.port}", f"trouble-{number}", timeout_s=1.0)
            try:
                client.info()
                for _ in range(5):
                    client.infer(observation)
            except (ConnectionError, TimeoutError):
                self._over.wait(0.1)
            client.close()


def live(port: int, payload: str, robots: int, seconds: float) -> Counter[str]:
    """Let robots live for a while; returns what happened, counted."""
    lives, until = [Life(port, payload, number) for number in range(robots)], time.monotonic() + seconds
    threads = [threading.Thread(target=life.live, args=(until,)) for life in lives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum((life.seen for life in lives), Counter[str]())


if __name__ == "__main__":
    trouble = Trouble()
    work({"live": live, "begin": trouble.begin, "end": trouble.end})
