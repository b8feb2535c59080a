"""The allocator's settings, seen in a process of its own: how many arenas its threads come to."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

# malloc_info(3) tells of every arena as <heap nr="...">.
ARENAS = """
import ctypes, sys, threading
from pirl_server import malloc as allocator
if sys.argv[1] == "tuned":
    print(sorted(allocator.tune().items()), file=sys.stderr)
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def work():
    together.wait()
    for _ in range(200):
        libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
told = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
"""


def arenas(*arguments: str, **environment: str) -> tuple[int, str]:
    """How many arenas eight threads that allocate side by side come to, and what `tune` said."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", ARENAS, *arguments], env=clean | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.count("<heap nr="), done.stderr


def test_threads_share_two_arenas() -> None:
    found, said = arenas("tuned")
    assert found <= 2
    assert "False" not in said, "glibc declined an option"
    assert arenas("as it is")[0] > 4, "without it they share none: this test could not fail"


def test_whoever_starts_the_process_decides() -> None:
    found, said = arenas("tuned", MALLOC_ARENA_MAX="6")
    assert found > 2
    assert "MALLOC_ARENA_MAX" not in said
    assert arenas("tuned", GLIBC_TUNABLES="glibc.malloc.arena_max=6") == (found, "[]\n")
