"""The composition root: builds the running server out of its parts and takes it down again in the right order."""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvicorn
from fastapi import FastAPI

from pirl_server import job_main
from pirl_server.api.application import create_api
from pirl_server.episodes import EpisodeStore
from pirl_server.jobs import Supervisor
from pirl_server.layout import EPISODES, JOBS, MODELS
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry import PRODUCTION, Registry
from pirl_server.serving import Engine, PolicyService, Recorder, start_grpc

_LOG = logging.getLogger("pirl")


@dataclass(frozen=True)
class ServeConfig:
    """What `pirl serve` is told."""

    checkpoint: Path | None
    """folder to start from; None: whatever is in production below `root`"""
    root: Path
    """models, episodes and jobs are kept here"""
    host: str = "127.0.0.1"
    grpc_port: int = 50051
    rest_port: int = 8000
    explore: bool = False
    """default sampling mode of robots that ask for none"""
    allow_insecure: bool = False
    """bind an address that other machines reach, though nothing is encrypted or authenticated yet"""
    device: str = "cpu"
    """where policies run, in torch's words: cpu, cuda, cuda:1"""


def serve(config: ServeConfig) -> None:
    """Run until SIGINT or SIGTERM. Raises ValueError for a bad checkpoint, address or taken port."""
    _check_address(config)
    with build(config) as (api, _):
        settings = uvicorn.Config(
            api, host=config.host, port=config.rest_port, log_level="warning", timeout_graceful_shutdown=1
        )
        print(f"pirl serves {config.host}: gRPC {config.grpc_port}, REST {config.rest_port}", flush=True)
        uvicorn.Server(settings).run()


@contextmanager
def build(config: ServeConfig) -> Iterator[tuple[FastAPI, grpc.Server]]:
    """Make everything but the HTTP listener; gRPC serves while the context is open."""
    registry = Registry(config.root / MODELS)
    production = adopt(registry, config.checkpoint)
    engine, store = Engine(), EpisodeStore(config.root / EPISODES)
    recorder = Recorder(store)

    def activate(version: str) -> None:
        engine.swap(FlowPolicy.load(registry.get(version).path, device=config.device))
        _LOG.warning("serving %s", version)

    with ExitStack() as closing:
        closing.callback(engine.close)
        closing.callback(recorder.close)
        activate(production)
        server, port = _start(PolicyService(engine, recorder, config.explore), config)
        command = [sys.executable, "-m", "pirl_server.job_main", str(config.root.resolve())]
        jobs = Supervisor(config.root / JOBS, command)
        api = create_api(
            jobs=jobs,
            registry=registry,
            episodes=store,
            engine=engine,
            activate=activate,
            check_job=job_main.check,
            grpc_port=port,
        )
        try:
            yield api, server
        finally:
            # No new requests, then no writers: an episode is published whole or not at all.
            stopped = server.stop(0.5)
            jobs.close()
            stopped.wait()


def _start(service: PolicyService, config: ServeConfig) -> tuple[grpc.Server, int]:
    try:
        return start_grpc(service, f"{config.host}:{config.grpc_port}")
    except ValueError as error:
        raise ValueError(f"{error}; give another one with --grpc-port") from None


def adopt(registry: Registry, checkpoint: Path | None) -> str:
    """Return the version to serve: what is in production, unless the checkpoint given was never seen before."""
    production = registry.aliases().get(PRODUCTION)
    if checkpoint is None:
        if production is None:
            raise ValueError("nothing is in production yet: give a checkpoint, pirl serve CHECKPOINT")
        return production
    card, _, _ = load_checkpoint(checkpoint)  # whole: a torn file must not go into production
    version = checkpoint_version(checkpoint)
    if production is not None and version in {model.version for model in registry.versions()}:
        return production
    registry.add(version, checkpoint, card.contract)
    registry.point(PRODUCTION, version, actor="serve", reason=f"started with {checkpoint}", event="started")
    return version


def _check_address(config: ServeConfig) -> None:
    """Refuse a taken REST port, and an address beyond this machine unless it is asked for in so many words."""
    try:
        address = socket.gethostbyname(config.host)
    except OSError as error:
        raise ValueError(f"host '{config.host}' is not known here ({error}): give another one with --host") from None
    if not ipaddress.ip_address(address).is_loopback and not config.allow_insecure:
        raise ValueError(
            f"host {config.host} can be reached from other machines and nothing is encrypted or authenticated yet: "
            "add --allow-insecure on a network you trust"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, config.rest_port))
        except OSError:
            raise ValueError(f"REST port {config.rest_port} is taken: give another one with --rest-port") from None
