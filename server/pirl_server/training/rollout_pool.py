"""Rollout workers: processes that hold their environments and a copy of the policy for a whole run.

The learner sends weights once per update and gets decisions back, both as safetensors bytes: nothing is unpickled.
A worker that dies makes the next `collect` raise RuntimeError; workers end by themselves when the learner is gone.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from safetensors.torch import load, save

from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.training.batch import DecisionBatch
from pirl_server.training.collector import Collector, MakeEnv

CLOSE = b""


class RolloutPool:
    """N workers with M environments each; a context manager that leaves no process behind."""

    def __init__(self, make_env: MakeEnv, checkpoint: Path, max_steps: int, workers: int, envs: int, seed: int) -> None:
        if envs % workers:
            raise ValueError(f"{envs} environments can't be shared evenly by {workers} workers")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(workers):
            mine, theirs = context.Pipe()
            arguments = (theirs, make_env, checkpoint, max_steps, envs // workers, seed + rank * 100_000)
            process = context.Process(target=work, args=arguments, name=f"rollout-{rank}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(mine)
            self._processes.append(process)

    def collect(self, weights: Mapping[str, torch.Tensor], decisions: int) -> DecisionBatch:
        """Send the actor's weights (a part of the state dict will do), wait for `decisions` of each environment."""
        message = decisions.to_bytes(4, "little") + save({key: value.contiguous() for key, value in weights.items()})
        try:
            for pipe in self._pipes:
                pipe.send_bytes(message)
            return DecisionBatch.merge([DecisionBatch.from_bytes(pipe.recv_bytes()) for pipe in self._pipes])
        except (EOFError, OSError):
            codes = {process.name: process.exitcode for process in self._processes}
            raise RuntimeError(f"a rollout worker died (exit codes {codes}); the log has its last words") from None

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *_: object) -> None:
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


def work(pipe: Connection, make_env: MakeEnv, checkpoint: Path, max_steps: int, envs: int, seed: int) -> None:
    """A worker's life: answer each set of weights with a batch until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner decides when to stop
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    policy = FlowPolicy.load(checkpoint)
    collector = Collector(make_env, policy, envs, itertools.count(seed), max_steps)
    try:
        while (message := pipe.recv_bytes()) != CLOSE:
            policy.model.load_state_dict(load(message[4:]), strict=False)
            batch = collector.collect(int.from_bytes(message[:4], "little"))
            pipe.send_bytes(batch.to_bytes())
    except (EOFError, BrokenPipeError):
        pass  # the learner is gone: so are we
    finally:
        collector.close()
