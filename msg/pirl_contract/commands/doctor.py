"""`pirl doctor`: checks this machine and prints a fix for each problem.

Uses the standard library and asks other programs and packages in child processes, so that a broken part can't break it.
Exit status: 0 all is well or only optional parts are missing, 1 something that is needed is not right.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

GIB = 1 << 30
PORTS = {"gRPC": 50051, "REST": 8000, "emergency stops": 8002}


@dataclass(frozen=True)
class Finding:
    """One checked item: its state and, if it is not ok, the fix."""

    subject: str
    state: str
    fix: str = ""
    optional: bool = False


def check_python() -> Finding:
    """The interpreter's version, and whether it keeps what it compiled."""
    found = platform.python_version()
    if sys.version_info < (3, 11):
        fix = "the server and the simulator need Python 3.11 or 3.12 (Zarr v3 does): install python3.11, run make setup"
        return Finding("python", found, fix)
    if sys.dont_write_bytecode and not _compiled("numpy"):
        fix = (
            "PYTHONDONTWRITEBYTECODE is set: a server then takes twice as long to start; unset it, or compile once: "
            f"{sys.executable} -m compileall -q {sys.prefix}/lib"
        )
        return Finding("python", f"{found}, every process compiles all that it imports", fix, optional=True)
    return Finding("python", found)


def check_numpy() -> Finding:
    """numpy, which every part needs."""
    return _package("numpy", "pip install 'numpy>=1.26'")


def check_torch() -> Finding:
    """Which torch build is installed and whether it sees a GPU."""
    output = _python("import torch; print(torch.__version__, 'CUDA' if torch.cuda.is_available() else 'CPU only')")
    if output is None:
        return Finding("torch", "not importable", "pip install 'pirl[server]' (not needed on the robot)", optional=True)
    return Finding("torch", output)


def check_gpu() -> Finding:
    """An NVIDIA GPU with its driver."""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        output = _run(command)
        if output:
            return Finding("gpu", output)
    return Finding(
        "gpu", "none", "small presets run on the CPU; full-size pi0 needs an NVIDIA GPU and its driver", True
    )


def check_mesa() -> Finding:
    """A Vulkan driver that SAPIEN accepts, tried by making a device."""
    code = "import sapien; sapien.render.RenderSystem(sapien.Device('cpu')); print('renders')"
    fix = (
        "apt-get install libvulkan1 libgl1 libegl1 mesa-vulkan-drivers; Mesa must be 23.2 or newer "
        "(Debian 12: from bookworm-backports; make setup does it); with several drivers set VK_ICD_FILENAMES"
    )
    if _python("import sapien; print(1)") is None:
        return Finding(
            "vulkan", "SAPIEN is not importable", "pip install 'pirl[sim]' (not needed on a real robot)", True
        )
    output = _python(code)
    mesa = _run(["dpkg-query", "-W", "-f", "${Version}", "mesa-vulkan-drivers"]) or "not from a package"
    if output is None:
        return Finding("vulkan", f"SAPIEN finds no device it can use (Mesa {mesa})", fix)
    return Finding("vulkan", f"SAPIEN renders (Mesa {mesa})")


def check_ros() -> Finding:
    """rclpy and the colcon-built pirl_msgs."""
    if _python("import rclpy; print(1)") is None:
        fix = "source your ROS 2 installation, or pip install 'pirl[ros]' on x86_64 Linux"
        return Finding("ros", "rclpy is not importable", fix, optional=True)
    if _python("import pirl_msgs.msg; print(1)") is None:
        fix = "make setup builds it; then run: source docker/ros_env.sh (or colcon build and source install/setup.bash)"
        return Finding("ros", "rclpy is importable, pirl_msgs is not", fix)
    if shutil.which("ros2") is None:
        fix = "ros2 launch needs an apt ROS 2; without one start the nodes in .ros/install/pirl_ros/lib/pirl_ros"
        return Finding("ros", "rclpy and pirl_msgs are importable, there is no `ros2` command", fix, optional=True)
    return Finding("ros", "rclpy and pirl_msgs are importable")


def check_disk() -> Finding:
    """Free space for the environment, episodes and checkpoints."""
    free = shutil.disk_usage(".").free / GIB
    fix = "" if free > 5 else "free at least 5 GiB: .venv takes 2.5, episodes and checkpoints the rest"
    return Finding("disk", f"{free:.1f} GiB free here", fix)


def check_memory() -> Finding:
    """Main memory and cores."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    fix = "" if total > 6 else "the demo's processes take about 5 GiB together"
    return Finding("memory", f"{total:.1f} GiB, {os.cpu_count()} cores", fix)


def check_ports() -> Finding:
    """Whether the default ports are free."""
    taken = [f"{name} {port}" for name, port in PORTS.items() if not _free(port)]
    if not taken:
        return Finding("ports", ", ".join(f"{name} {port} free" for name, port in PORTS.items()))
    fix = "stop the process that uses it or choose others: pirl serve --grpc-port N --rest-port N --stop-port N"
    return Finding("ports", f"taken: {', '.join(taken)}", fix, optional=True)


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python, check_numpy, check_torch, check_gpu, check_mesa, check_ros, check_disk, check_memory, check_ports,
)  # fmt: skip


def main(arguments: Sequence[str] = ()) -> int:
    """Print one line per finding and the fix below what is not right."""
    argparse.ArgumentParser(prog="pirl doctor", description="Check this machine; print the fixes").parse_args(
        list(arguments)
    )
    wrong = 0
    for check in CHECKS:
        finding = check()
        mark = "ok  " if not finding.fix else "note" if finding.optional else "BAD "
        wrong += mark == "BAD "
        print(f"{mark} {finding.subject:7} {finding.state}")
        if finding.fix:
            print(f"             -> {finding.fix}")
    return 1 if wrong else 0


def _package(name: str, fix: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", fix)


def _compiled(package: str) -> bool:
    spec = find_spec(package)
    return spec is None or spec.cached is None or Path(spec.cached).exists()


def _python(code: str) -> str | None:
    """Run code in a fresh interpreter; None when it fails (or crashes, or hangs)."""
    return _run([sys.executable, "-W", "ignore", "-c", code])


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
