"""Memory and use of NVIDIA GPUs by NVML, the library of their driver: absent where there is no driver.

Read through ctypes: no package is needed, and unlike a question to CUDA it makes no context, which would take some
hundred MiB of the device. Numbers are of the whole device, other processes included.

Source: NVML API reference, nvml.h (structures `nvmlMemory_t`, `nvmlUtilization_t`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LIBRARY = "libnvidia-ml.so.1"
UUID_BYTES = 96


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Utilization(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint) for name in ("gpu", "memory")]


class Gpus(Collector):
    """The GPUs that were there at the start."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices = {
            _uuid(nvml, device) or f"index {index}": device
            for index in range(_count(nvml))
            if (device := _device(nvml, index)) is not None
        }

    def collect(self) -> Iterable[Metric]:
        """Return what each device answers; one that does not answer, or not this, is left out."""
        memory = GaugeMetricFamily("pirl_gpu_memory_bytes", "Memory of a GPU", labels=["gpu", "what"])
        use = GaugeMetricFamily("pirl_gpu_utilization_ratio", "Share of time in which a kernel ran", labels=["gpu"])
        for uuid, device in self._devices.items():
            if _reads(self._nvml.nvmlDeviceGetMemoryInfo, device, held := _Memory()):
                memory.add_metric([uuid, "total"], held.total)
                memory.add_metric([uuid, "used"], held.used)
            if _reads(self._nvml.nvmlDeviceGetUtilizationRates, device, rates := _Utilization()):
                use.add_metric([uuid], rates.gpu / 100)
        return [family for family in (memory, use) if family.samples]


def gpus() -> Gpus | None:
    """Return the GPUs of this machine, None where there is no driver or it does not start."""
    try:
        nvml = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return Gpus(nvml) if nvml.nvmlInit_v2() == 0 else None


def _count(nvml: Any) -> int:
    count = ctypes.c_uint()
    return count.value if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0 else 0


def _device(nvml: Any, index: int) -> ctypes.c_void_p | None:
    device = ctypes.c_void_p()
    return device if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) == 0 else None


def _uuid(nvml: Any, device: ctypes.c_void_p) -> str:
    text = ctypes.create_string_buffer(UUID_BYTES)
    nvml.nvmlDeviceGetUUID(device, text, ctypes.c_uint(UUID_BYTES))
    return text.value.decode(errors="replace")


def _reads(call: Any, device: ctypes.c_void_p, into: ctypes.Structure) -> bool:
    return bool(call(device, ctypes.byref(into)) == 0)
