"""Rollout workers: processes that keep their environments and a copy of the policy for a whole run.

The learner sends weights once per update and gets decisions back, both as safetensors bytes: nothing is unpickled.
A worker that dies makes the next `collect` raise RuntimeError; workers end by themselves when the learner is gone.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import struct
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import load, save

from pirl_contract.protocols import MakeEnv
from pirl_server.config.training import PpoConfig
from pirl_server.process_reaper import end_with
from pirl_server.training.rollout.actor import load_weights, set_up
from pirl_server.training.rollout.batch import DecisionBatch
from pirl_server.training.rollout.collector import Collector, GroupCollector
from pirl_server.training.rollout.explorer import Explorer
from pirl_server.training.seeds import SEEDS_PER_WORKER

CLOSE = b""
ORDER = struct.Struct("<IdQ")
"""how much to collect, at which noise level, by which policy version"""


class WorkerPool:
    """`RolloutPool` of the config's worker processes, which share its environments."""

    def __init__(self, make_env: MakeEnv, checkpoint: Path, max_steps: int, *, config: PpoConfig, seed: int) -> None:
        if config.envs % config.workers:
            raise ValueError(f"{config.envs} environments can't be shared evenly by {config.workers} workers")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(config.workers):
            mine, theirs = context.Pipe()
            seeds = seed + rank * SEEDS_PER_WORKER
            arguments = (theirs, make_env, checkpoint, max_steps, config, seeds)
            process = context.Process(target=work, args=arguments, name=f"rollout-{rank}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def collect(
        self, weights: Mapping[str, torch.Tensor], amount: int, noise_level: float, version: int
    ) -> DecisionBatch:
        """Send the weights to every worker and wait for the decisions of all; see `RolloutPool.collect`.

        `weights`: tensors of any shape by name. Raises RuntimeError when a worker has died.
        """
        tensors = save({name: tensor.contiguous() for name, tensor in weights.items()})
        message = ORDER.pack(amount, noise_level, version) + tensors
        try:
            for pipe in self._pipes:
                pipe.send_bytes(message)
            return DecisionBatch.merge([DecisionBatch.from_bytes(pipe.recv_bytes()) for pipe in self._pipes])
        except (EOFError, OSError):
            for process in self._processes:
                process.join(timeout=0.2)  # the pipe closes a moment before the exit code is known
            codes = {process.name: process.exitcode for process in self._processes if not process.is_alive()}
            raise RuntimeError(f"a rollout worker died (exit codes {codes}); see the log") from None

    def close(self) -> None:
        """End the workers; one that does not end is killed."""
        for pipe in self._pipes:
            try:
                pipe.send_bytes(CLOSE)
            except OSError:
                continue  # it is gone already, which is what we want
            finally:
                pipe.close()
        for process in self._processes:
            process.join(timeout=3)
            if process.is_alive():
                process.kill()
                process.join()


def work(pipe: Connection, make_env: MakeEnv, checkpoint: Path, max_steps: int, config: PpoConfig, seed: int) -> None:
    """A worker's life: answer each set of weights with a batch until the pipe closes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the learner decides when to stop
        signal.signal(number, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    policy, net = set_up(checkpoint, config)
    explorer = Explorer(policy, config, net)
    kind = GroupCollector if config.advantage == "grpo" else Collector
    envs, seeds = config.envs // config.workers, itertools.count(seed)
    collector = kind(make_env, policy, envs, seeds, max_steps, explorer=explorer)
    try:
        while (message := pipe.recv_bytes()) != CLOSE:
            amount, level, version = ORDER.unpack_from(message)
            policy.card = replace(policy.card, noise_level=level)
            load_weights(explorer, load(message[ORDER.size :]))
            collector.policy_version = version
            pipe.send_bytes(collector.collect(amount).to_bytes())
    except (EOFError, BrokenPipeError):
        pass  # the learner is gone: so are we
    finally:
        collector.close()
