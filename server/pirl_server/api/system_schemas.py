"""JSON schemas of what the server runs on."""

from __future__ import annotations

from typing import Literal

from pirl_server.api.described import Described


class DiskView(Described):
    """Room on the disk of the root."""

    total_bytes: int
    """of the file system"""
    free_bytes: int
    """of it"""
    kept_free_bytes: int
    """with less, no episode begins"""
    takes_episodes: bool
    """whether one can begin now"""


class DeviceView(Described):
    """The processor, or a GPU of this machine."""

    name: str
    """cpu, or the GPU's UUID"""
    kind: Literal["cpu", "gpu"]
    """which"""
    cores: int | None
    """that this process may use; null: a GPU"""
    memory_bytes: int
    """of the machine, or of the GPU"""
    memory_used_bytes: int
    """by all processes"""
    utilization: float | None
    """load per core of the last minute, or the share of time in which a kernel ran; null: not known"""


class LimitsView(Described):
    """What the server takes at most."""

    open_files: int
    """of this process"""
    rest_connections: int
    """of all clients together"""
    grpc_connections: int
    """of all robots together"""
    rest_calls_per_s: float | None
    """of one token; null: no limit, since no tokens are required"""
    body_bytes: int
    """of a REST request"""
    page_entries: int
    """of a list"""
    video_steps: int
    """of an episode that a video is made of"""


class System(Described):
    """The server and its machine."""

    server_version: str
    """of this software"""
    python_version: str
    """that runs it"""
    packages: dict[str, str]
    """installed packages that results depend on, with their versions"""
    platform: str
    """kernel and architecture"""
    started: str
    """ISO 8601, UTC"""
    uptime_s: float
    """since then"""
    root: str
    """folder of models, episodes and jobs"""
    disk: DiskView
    """of the root"""
    devices: list[DeviceView]
    """processor and GPUs"""
    jobs: dict[str, int]
    """how many have each status"""
    episodes: int
    """published"""
    episode_bytes: int
    """of them all"""
    tokens_required: bool
    """whether calls need a token"""
    limits: LimitsView
    """what is taken at most"""
