"""What does advantage-weighted flow matching make of logged episodes? The whole way: gRPC, Zarr, REST job, evaluation.

    python bench/offline_learning.py [--quick] [--json] [--episodes 96] [--seed 0]

Logs episodes of the shipped base policy (exploring) through a real server on loopback, runs a `finetune_episodes` job
on them and evaluates both versions on the same fixed initial states. `--quick` shows that it runs, not what it learns.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import uvicorn

from pirl_contract import Env, StepOutcome
from pirl_contract.client import PolicyClient
from pirl_server.app import build
from pirl_server.config.serve import ServeConfig
from pirl_server.demo.processes import free_port
from pirl_server.demo.rest import Rest
from pirl_server.demo.run import BASE
from pirl_server.demo.terminal import Bar
from pirl_server.training.seeds import ROBOT
from pirl_sim.maniskill.env import make_env

TASK = "PushCube-v1"
MAX_STEPS = 48


def log_episode(env: Env, client: PolicyClient, seed: int) -> bool:
    """One logged episode over the network; returns its success."""
    observation = env.reset(seed)
    client.start_episode(env.contract, observation.instruction, {"seed": str(seed)})
    outcomes: list[StepOutcome] = []
    steps, ended, success = 0, False, False
    while not ended:
        chunk = client.infer(observation, outcomes)
        outcomes = []
        for index in range(chunk.execute_horizon):
            result = env.step(chunk.actions[index])
            steps, ended = steps + 1, result.terminated or result.truncated
            success = success or result.success
            observation = env.observe()  # the state of each step is learnt from, not only that of each request
            outcomes.append(
                StepOutcome(
                    chunk.chunk_id, index, chunk.actions[index], observation.state, result.reward, time_ns=steps
                )
            )
            if ended:
                break
    client.end_episode(
        "success" if success else "failure", "sim", "success" if success else "time_limit", False, outcomes
    )
    return success


def learn(
    rest: Rest, grpc_port: int, episodes: int, evaluation: int, seed: int, config: dict[str, Any]
) -> dict[str, float]:
    """Log, fine-tune, evaluate; return the figures."""
    env = make_env(TASK, cameras=True)
    client = PolicyClient(f"127.0.0.1:{grpc_port}", mode="explore", timeout_s=10.0)
    bar, began = Bar("log      "), time.monotonic()
    logged = 0
    for number in range(episodes):
        logged += log_episode(env, client, ROBOT.start + 50_000 + seed * 1000 + number)
        bar.show(number + 1, episodes, f"{logged} successes")
    log_s = time.monotonic() - began
    spec: dict[str, Any] = {"kind": "finetune_episodes", "task": TASK, "seed": seed, "config": config}
    tuned, metrics = rest.run_job(spec, Bar("fine-tune"))
    figures = {"episodes": float(episodes), "logged_successes": float(logged), "log_s": log_s}
    figures["windows"] = metrics[0]["windows"]
    for label, version in (("before", "production"), ("after", tuned["version"])):
        job = {"kind": "evaluate", "task": TASK, "version": version, "episodes": evaluation}
        result = rest.run_job(job, Bar(label))[0]
        figures |= {f"{label}_{key}": result[key] for key in ("success_rate", "wilson_low", "wilson_high", "episodes")}
    env.close()
    client.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="12 episodes, 25 steps, evaluated on 4")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    episodes, evaluation = (12, 4) if options.quick else (options.episodes, 200)
    job: dict[str, Any] = {"method": "advantage_weighted"} | ({"steps": 25, "value_steps": 25} if options.quick else {})
    with tempfile.TemporaryDirectory() as folder:
        rest_port = free_port()
        config = ServeConfig(BASE, Path(folder), grpc_port=free_port(), rest_port=rest_port)
        with build(config) as (api, _):
            web = uvicorn.Server(uvicorn.Config(api, port=rest_port, log_level="warning"))
            thread = threading.Thread(target=web.run, daemon=True)
            thread.start()
            rest = Rest(rest_port)
            rest.wait_until_ready(lambda: None)
            figures = learn(rest, config.grpc_port, episodes, evaluation, options.seed, job)
            web.should_exit = True
            thread.join()
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:.3f}")


if __name__ == "__main__":
    main()
