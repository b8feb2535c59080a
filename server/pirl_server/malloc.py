"""glibc allocator settings for short-lived threads and messages of megabytes.

By default each thread that finds the arenas busy opens another, up to eight per core, and what dead threads leave in
theirs is seldom used again: a server whose robots connect and leave grows although nothing holds on to the memory. And
memory above a threshold is given back to the kernel at each message, to be asked for again with the next.
"""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
KEEP = 64 * 2**20
"""bytes at the end of the heap that are not given back"""
MAP_FROM = 32 * 2**20
"""bytes from which an allocation is mapped alone: the most that glibc takes, and where a free of that size gets it"""

# mallopt(3): parameter, value, the environment variable that overrides it
_OPTIONS = (
    (-8, ARENAS, "MALLOC_ARENA_MAX"),
    (-1, KEEP, "MALLOC_TRIM_THRESHOLD_"),
    (-3, MAP_FROM, "MALLOC_MMAP_THRESHOLD_"),
)


def tune() -> dict[str, bool]:
    """Set what the environment leaves open; must come before threads start. Returns which variables' places were taken.

    Nothing is set where the C library is not glibc (there is no `mallopt` or it declines): that costs memory, not more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "GLIBC_TUNABLES" in os.environ:
        return {}
    free = [option for option in _OPTIONS if option[2] not in os.environ]
    return {variable: bool(mallopt(parameter, value)) for parameter, value, variable in free}
