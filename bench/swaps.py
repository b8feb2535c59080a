"""Does replacing the policy under load cost anyone a request, or mix two versions in one chunk?

    python bench/swaps.py [--quick] [--json]

Eight robots ask as fast as they are answered, half of them on a session, half with unary calls, all over gRPC on this
machine, while the served version is replaced again and again: loaded, warmed up at every batch size, used, the one
before unloaded.

1. `numbers`: every number of a chunk is that of its version, so a mixed chunk shows at once.
2. `tiny`: four pi0 of half a million parameters. Every chunk is drawn again, alone, by the version and the seed that it
   names, and by another version, from which it must differ.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pirl_contract import ActionChunk, Contract, Field, Observation
from pirl_contract.client import PolicyClient
from pirl_server.episodes.store import EpisodeStore
from pirl_server.model.pi0.config import tiny_state
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.features import STATE_DIM
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.model_card import ModelCard
from pirl_server.policy.served_policy import PolicyRequest, PolicySample, ServedPolicy
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

ROBOTS, HORIZON, ACTION_DIM = 8, 4, 4
CLOSE = 1e-4
SENTENCE = "push the cube"
CONTRACT = Contract(
    robot="bench",
    cameras=(),
    state=tuple(Field(f"s{index}", "1") for index in range(21)),
    action=tuple(Field(f"a{index}", "1") for index in range(ACTION_DIM)),
    rate_hz=20.0,
)


@dataclass(frozen=True)
class Numbers:
    """Every number of its chunks is that of its version; a batch takes two milliseconds."""

    number: int
    contract: Contract = CONTRACT
    name: str = "numbers"
    horizon: int = HORIZON
    execute_horizon: int = HORIZON
    instructions: tuple[str, ...] = (SENTENCE,)
    continuations: tuple[Literal["guided", "prefix"], ...] = ()

    @property
    def version(self) -> str:
        return f"v{self.number}"

    def sample(self, observation: Observation, *, explore: bool, seed: int) -> PolicySample:
        chain = np.full((5, HORIZON, ACTION_DIM), self.number, np.float32)
        return PolicySample(chain[-1], chain, -1, np.zeros_like(chain[0]), 0.0, 0.0, float("nan"), seed)

    def sample_batch(self, asks: Sequence[PolicyRequest]) -> list[PolicySample | ValueError]:
        time.sleep(0.002)
        return [self.sample(ask.observation, explore=ask.explore, seed=ask.seed) for ask in asks]


def tiny_policy(number: int) -> FlowPolicy:
    card = ModelCard(
        name="tiny", contract=CONTRACT, model=tiny_state(STATE_DIM, ACTION_DIM, HORIZON), features="proprioception",
        action_scale=(1.0,) * ACTION_DIM, execute_horizon=HORIZON, denoise_steps=4, noise_level=0.5,
        instructions=(SENTENCE,), task="bench",
    )  # fmt: skip
    torch.manual_seed(number)
    return FlowPolicy(card, Pi0(card.model), f"v{number}")


@dataclass
class Load:
    """What the robots saw."""

    done: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[ActionChunk, Observation, float]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def wait(self, answers: int) -> None:
        """Until there are so many answers; an error when they stop coming."""
        last = time.monotonic()
        while (seen := len(self.answers)) < answers:
            time.sleep(0.01)
            last = time.monotonic() if len(self.answers) > seen else last
            assert time.monotonic() - last < 60.0, f"the robots fell silent after {seen} answers"

    def drive(self, address: str, robot: int) -> None:
        client = PolicyClient(
            address, f"arm-{robot}", timeout_s=60.0, mode="deterministic", transport="session" if robot % 2 else "unary"
        )
        rng = np.random.default_rng(robot)
        client.info()
        while not self.done.is_set():
            seen = Observation({}, rng.normal(size=21).astype(np.float32), SENTENCE)
            began = time.perf_counter()
            try:
                chunk = client.infer(seen)
            except (ConnectionError, TimeoutError, ValueError) as error:
                self.failures[type(error).__name__ + ": " + str(error)[:80]] += 1
                continue
            self.answers.append((chunk, seen, 1e3 * (time.perf_counter() - began)))
        client.close()


def under_load(first: ServedPolicy, work: Callable[[Engine, Load], None]) -> Load:
    """Run `work` while eight robots ask a service on a socket."""
    with tempfile.TemporaryDirectory() as folder:
        engine, recorder = Engine(), Recorder(EpisodeStore(Path(folder)))
        engine.swap(first)
        server, port = start_grpc(PolicyService(engine, recorder, explore=False), "127.0.0.1:0")
        load = Load()
        with ThreadPoolExecutor(ROBOTS) as pool:
            robots = [pool.submit(load.drive, f"127.0.0.1:{port}", index) for index in range(ROBOTS)]
            try:
                load.wait(4 * ROBOTS)
                work(engine, load)
            finally:
                load.done.set()
            for robot in robots:
                robot.result()
        server.stop(None).wait()
        engine.close()
        recorder.close()
    return load


def measure(make: Callable[[int], ServedPolicy], swaps: int, mixed: Callable[[Load], int]) -> dict[str, Any]:
    marks: list[int] = []
    took_ms: list[float] = []

    def quiet_then_swap(engine: Engine, load: Load) -> None:
        load.wait(len(load.answers) + 40 * ROBOTS)
        marks.append(len(load.answers))
        for number in range(1, swaps + 1):
            began = time.perf_counter()
            engine.swap(make(number))
            took_ms.append(1e3 * (time.perf_counter() - began))
        marks.append(len(load.answers))

    load = under_load(make(0), quiet_then_swap)
    before = [waited for _, _, waited in load.answers[4 * ROBOTS : marks[0]]]
    during = [waited for _, _, waited in load.answers[marks[0] : marks[1]]]
    return {
        "swaps": swaps,
        "requests during the swaps": len(during),
        "requests failed": sum(load.failures.values()),
        "chunks that are not of their version": mixed(load),
        "versions seen": len({chunk.policy_version for chunk, _, _ in load.answers}),
        "swap p50, ms": round(float(np.median(took_ms)), 1),
        "request p50, ratio to before": round(float(np.median(during) / np.median(before)), 2),
        "request p99, ratio to before": round(float(np.percentile(during, 99) / np.percentile(before, 99)), 2),
    } | {f"failed with {text}": count for text, count in load.failures.items()}


def mixed_numbers(load: Load) -> int:
    return sum(bool((chunk.actions != float(chunk.policy_version[1:])).any()) for chunk, _, _ in load.answers)


def mixed_weights(policies: dict[str, FlowPolicy], limit: int) -> Callable[[Load], int]:
    def count(load: Load) -> int:
        wrong = 0
        for chunk, seen, _ in load.answers[:: max(1, len(load.answers) // limit)]:
            own = policies[chunk.policy_version]
            other = next(policy for policy in policies.values() if policy is not own)
            near, far = (
                float(np.abs(each.sample(seen, explore=False, seed=chunk.seed).actions - chunk.actions).max())
                for each in (own, other)
            )
            assert far > 10 * CLOSE, "two versions that draw the same prove nothing"
            wrong += near > CLOSE
        return wrong

    return count


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: 50 swaps of numbers, 8 of tiny")
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiny = [tiny_policy(number) for number in range(4)]
    by_version = {f"v{number}": tiny[number % 4] for number in range(1001)}
    parts = {
        "numbers": measure(Numbers, 50 if options.quick else 1000, mixed_numbers),
        "tiny": measure(
            lambda number: renamed(tiny[number % 4], number),
            8 if options.quick else 100,
            mixed_weights(by_version, 200 if options.quick else 2000),
        ),
    }
    if options.json:
        print(json.dumps({f"{part}, {name}": value for part, found in parts.items() for name, value in found.items()}))
        return
    for part, found in parts.items():
        print(part, *(f"  {name:40} {value}" for name, value in found.items()), sep="\n")


def renamed(policy: FlowPolicy, number: int) -> FlowPolicy:
    """The same weights under another version: a thousand need not be made."""
    return FlowPolicy(replace(policy.card, name=f"tiny {number}"), policy.model, f"v{number}")


if __name__ == "__main__":
    main()
