"""Leases of devices: one job at a time on each, kept by the kernel.

A lease is a lock on a file that the job's own processes hold open. It is free when the last of them is gone, however
that came about, and never before: no clock, no time-out, nothing to clean up. Locks of GPUs are one place for all
servers of a user on this machine, others are the root's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import tempfile
from pathlib import Path

CPU = re.compile(r"cpu:\d+")
GPU = re.compile(r"(GPU|MIG)-[0-9a-fA-F/-]+|\d+")
FOLDER = ".devices"


def check_device(name: str) -> str:
    """Return the name of a device: `cpu:N`, or a GPU's index or UUID. Raises ValueError."""
    if not CPU.fullmatch(name) and not GPU.fullmatch(name):
        raise ValueError(f"device '{name}' is not known: give cpu:0, or the index or UUID of a GPU (nvidia-smi -L)")
    return name


def environment(device: str) -> dict[str, str]:
    """Return what makes a process see this GPU alone; nothing for a part of the CPU."""
    return {} if CPU.fullmatch(device) else {"CUDA_VISIBLE_DEVICES": device, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def take(device: str, root: Path) -> int | None:
    """Lease a device for a job below this root, while any process has the returned descriptor open.

    None while another job has it. Raises OSError.
    """
    folder = root / FOLDER if CPU.fullmatch(device) else _shared()
    folder.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / f"{device.replace('/', '_')}.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _shared() -> Path:
    """The user's own folder of this machine. Raises OSError when another user has taken its name."""
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"pirl-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise OSError(errno.EPERM, "it belongs to another user", str(folder))
    return folder
