"""Configuration of `pirl serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ServeConfig:
    """What `pirl serve` is told."""

    checkpoint: Path | None
    """folder to start from; None: whatever is in production below `root`"""
    root: Path
    """folder for models, episodes and jobs"""
    host: str = "127.0.0.1"
    grpc_port: int = 50051
    rest_port: int = 8000
    stop_port: int | None = None
    """takes emergency stops only, from its own thread; None: two above the REST port, 0: nowhere"""
    explore: bool = False
    """default sampling mode of robots that ask for none"""
    tls_cert: Path | None = None
    """PEM files of gRPC and REST; without them nothing is encrypted"""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """only clients with a certificate of this authority may connect"""
    allow_insecure: bool = False
    """bind an address that other machines reach without certificate or tokens, with a warning"""
    robot_rate_hz: float = 0.0
    """chunks that each robot may ask for per second; 0: any number"""
    openpi_port: int | None = None
    """where clients of openpi are answered on their own wire; None: nowhere"""
    openpi_key: Sequence[str] = ()
    """NAME=KEY words: which key of their observations is which camera, the state or the prompt"""
    episode_memory_mib: int = 1024
    """of all open episodes; a robot may take a quarter, what is beyond half of that waits in files below `root`"""
    log_format: Format = "text"
    device: str = "cpu"
    """where policies run, in torch's words: cpu, cuda, cuda:1"""
    drain_seconds: float = 5.0
    """from SIGTERM or SIGINT on, how long connected robots are still answered"""


Format = Literal["text", "json"]
