"""Success of a checkpoint on a fixed list of initial states, by worker processes, through the reference simulator.

Deterministic sampling (ODE); the noise of an episode is a function of its reset seed, so two versions meet the same
states with the same noise, and the same version twice gives the same result.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from safetensors.numpy import load, save

from pirl_contract import RolloutResult, rollout
from pirl_contract.protocols import MakeEnv
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.policy.local_policy import LocalPolicy
from pirl_server.process_reaper import end_with
from pirl_server.training.progress import Progress


def evaluate(
    checkpoint: Path,
    make_env: MakeEnv,
    max_steps: int,
    seeds: Sequence[int],
    progress: Progress,
    workers: int = 2,
    known: Mapping[int, RolloutResult] = MappingProxyType({}),
    keep: Callable[[int, RolloutResult], None] = lambda seed, result: None,
) -> dict[int, RolloutResult]:
    """Run one episode per seed; return results by seed, fewer of them only when cancelled.

    Those of `known` seeds are not run again; `keep` is called with each of the others. Raises RuntimeError when a
    worker died.
    """
    seeds, kept = [seed for seed in seeds if seed not in known], {s: known[s] for s in seeds if s in known}
    if not seeds:
        return kept
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for rank in range(workers):
        mine, theirs = context.Pipe(duplex=False)
        share = list(seeds[rank::workers])
        process = context.Process(target=work, args=(theirs, checkpoint, make_env, max_steps, share), daemon=True)
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        return _gather(pipes, kept, len(seeds) + len(kept), progress, keep)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()


def _gather(
    pipes: list[Connection],
    results: dict[int, RolloutResult],
    total: int,
    progress: Progress,
    keep: Callable[[int, RolloutResult], None],
) -> dict[int, RolloutResult]:
    progress.progress(len(results), total, "episodes")
    while len(results) < total and not progress.cancelled:
        arrived = wait(pipes, timeout=0.5)
        for pipe in arrived:
            assert isinstance(pipe, Connection)
            try:
                message = load(pipe.recv_bytes())
            except EOFError:
                raise RuntimeError("an evaluation worker died; see the log") from None
            seed, success, steps = (int(value) for value in message["result"])
            results[seed] = RolloutResult(bool(success), steps, float(message["reward"][0]), ())
            keep(seed, results[seed])
            if len(results) == total:
                break
        if arrived:
            rate = np.mean([result.success for result in results.values()])
            progress.progress(len(results), total, f"episodes, success {rate:.2f}")
    return results


def work(pipe: Connection, checkpoint: Path, make_env: MakeEnv, max_steps: int, seeds: list[int]) -> None:
    """A worker's life: one message per episode, then wait to be ended, or for the end of the parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; who gathers decides when to stop
        signal.signal(number, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    policy, env = FlowPolicy.load(checkpoint), make_env()
    try:
        for seed in seeds:
            result = rollout(env, LocalPolicy(policy, seed * 1000), seed, max_steps)
            values = np.array([seed, result.success, result.steps], np.int64)
            pipe.send_bytes(save({"result": values, "reward": np.array([result.total_reward])}))
        parent.join()
    except BrokenPipeError:
        pass  # no receiver any more
    finally:
        env.close()
