"""/v1/system: what this server is and what it runs on, without secrets."""

from __future__ import annotations

import os
import platform
import shutil
import time
from functools import cache
from importlib import metadata

from fastapi import APIRouter, Response

from pirl_server.api.dependencies import MAX_PAGE, Services, ServicesDep
from pirl_server.api.request_body import MAX_BODY
from pirl_server.api.system_schemas import DeviceView, DiskView, LimitsView, System
from pirl_server.api.videos import MAX_STEPS
from pirl_server.atomic_files import utc_now
from pirl_server.security.file_limits import current_limit, shares
from pirl_server.telemetry.gpus import gpus

router = APIRouter(prefix="/v1/system", tags=["health"])
PACKAGES = ("torch", "numpy", "zarr", "grpcio", "fastapi", "uvicorn", "pydantic", "av", "mani-skill", "metaworld")
_STARTED, _SINCE = utc_now(), time.monotonic()
_GPUS = gpus()


@router.get("", operation_id="getSystem", response_model=System)
async def get_system(services: ServicesDep) -> Response:
    """Get versions, devices, room on the disk, limits and how long the server has been running."""
    return await services.reads.answer(lambda: _system(services))


def _system(services: Services) -> System:
    root = services.episodes.root.parent
    episodes, size = services.episodes.totals()
    return System(
        server_version=_version("pirl"),
        python_version=platform.python_version(),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        started=_STARTED,
        uptime_s=round(time.monotonic() - _SINCE, 1),
        root=str(root.resolve()),
        disk=_disk(services, str(root)),
        devices=_devices(),
        jobs={status.value: count for status, count in services.jobs.counts().items()},
        episodes=episodes,
        episode_bytes=size,
        tokens_required=not services.gate_open,
        limits=_limits(services),
    )


def _disk(services: Services, root: str) -> DiskView:
    usage = shutil.disk_usage(root)
    return DiskView(
        total_bytes=usage.total, free_bytes=usage.free, kept_free_bytes=services.episodes.least_free,
        takes_episodes=not services.episodes.no_room(),
    )  # fmt: skip


def _devices() -> list[DeviceView]:
    load = os.getloadavg()[0]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    available = os.sysconf("SC_AVPHYS_PAGES") * size
    cores = len(os.sched_getaffinity(0))
    found = [
        DeviceView(
            name="cpu", kind="cpu", cores=cores, memory_bytes=pages * size, memory_used_bytes=pages * size - available,
            utilization=round(min(1.0, load / cores), 3),
        )
    ]  # fmt: skip
    return found + _gpu_views()


def _gpu_views() -> list[DeviceView]:
    if _GPUS is None:
        return []
    memory, use = dict[str, dict[str, int]](), dict[str, float]()
    for family in _GPUS.collect():
        for sample in family.samples:
            if "what" in sample.labels:
                memory.setdefault(sample.labels["gpu"], {})[sample.labels["what"]] = int(sample.value)
            else:
                use[sample.labels["gpu"]] = sample.value
    return [
        DeviceView(
            name=name, kind="gpu", cores=None, memory_bytes=found["total"], memory_used_bytes=found["used"],
            utilization=use.get(name),
        )
        for name, found in memory.items()
    ]  # fmt: skip


def _limits(services: Services) -> LimitsView:
    ports = shares(current_limit())
    return LimitsView(
        open_files=current_limit(),
        rest_connections=ports.rest,
        grpc_connections=ports.grpc,
        rest_calls_per_s=services.rest_rate_hz,
        body_bytes=MAX_BODY,
        page_entries=MAX_PAGE,
        video_steps=MAX_STEPS,
    )


@cache
def _version(package: str) -> str:
    """Of what is installed, else empty; looking takes a millisecond."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
