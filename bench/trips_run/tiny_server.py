"""The server as `pirl serve` builds it, in this process, with a new policy of half a million parameters."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from fastapi import FastAPI

from pirl_contract import Contract
from pirl_server import simulation
from pirl_server.app import build
from pirl_server.config.serve import ServeConfig
from pirl_server.model.pi0.pi0 import Pi0
from pirl_server.policy.checkpoint import save_checkpoint
from pirl_server.training.supervised.sft import new_card

TASK = "PushCube-v1"


@contextmanager
def tiny_server() -> Iterator[tuple[FastAPI, Contract, Path]]:
    """The REST application, which knows the gRPC port, the contract that is served, and the root."""
    logging.getLogger("pirl").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        contract = simulation.contract(TASK)
        card = new_card("tiny", TASK, contract, simulation.instructions(TASK))
        torch.manual_seed(0)
        save_checkpoint(Path(folder) / "checkpoint", card, Pi0(card.model).state_dict())
        root = Path(folder) / "root"
        config = ServeConfig(Path(folder) / "checkpoint", root, grpc_port=0)
        with redirect_stdout(sys.stderr), build(config) as (api, _):
            yield api, contract, root
