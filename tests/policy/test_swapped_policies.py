"""Real networks replaced under load: every chunk is the one that the version and the seed it names would draw alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event

import numpy as np
import pytest
from patience import patient
from toy_arm import toy_observation, toy_policy

from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.serving.engine import Engine
from pirl_server.serving.request_queue import Inference

CLOSE = 1e-5


def policy(number: int) -> FlowPolicy:
    made = toy_policy(seed=number)
    made.version = f"v{number}"
    return made


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(batch_sizes=(1, 2, 4))
    made.swap(policy(0))
    yield made
    made.close()


def test_20_swaps_of_real_policies_mix_no_row(engine: Engine) -> None:
    done = Event()

    def drive(robot: int) -> list[tuple[int, Inference]]:
        drawn = []
        for step in count():
            if done.is_set():
                return drawn
            seed = 1000 * robot + step
            asked = engine.submit(toy_observation(seed), explore=step % 2 == 0, robot_id=f"arm-{robot}", seed=seed)
            drawn.append((seed, asked.result(patient(60))))
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        driven = [pool.submit(drive, robot) for robot in range(4)]
        try:
            for number in range(1, 21):
                engine.swap(policy(number))
        finally:
            done.set()
        drawn = [each for robot in driven for each in robot.result()]
    assert len({answer.policy.version for _, answer in drawn}) > 5
    assert max(answer.rows for _, answer in drawn) > 1
    stranger = policy(60)
    for seed, answer in drawn[:: max(1, len(drawn) // 60)]:
        explored = answer.sample.sde_index >= 0
        alone = answer.policy.sample(toy_observation(seed), explore=explored, seed=seed)
        other = stranger.sample(toy_observation(seed), explore=explored, seed=seed)
        assert np.abs(answer.sample.chain - alone.chain).max() < CLOSE
        assert np.abs(answer.sample.chain - other.chain).max() > 100 * CLOSE, "the control: another network"
