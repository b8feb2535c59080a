"""Runs one command so that no descendant outlives it, or outlives the process that started it.

    python -I -S reaper.py PARENT COMMAND [ARGUMENT ...]

Between a process of ours and each command that it starts stands one of these, a Linux child subreaper. When the command
ends, when the parent dies by whatever signal (the kernel reports it: PR_SET_PDEATHSIG) or when `END` arrives, every
descendant gets SIGKILL, those in sessions of their own too. SIGTERM and SIGINT are passed on to the command's group.
The exit status, or the signal that ended the command, is the reaper's own.

PDEATHSIG is raised when the *thread* that started this process ends: start it from one that outlives the command. Only
the standard library is imported, and little of it: tens of milliseconds before the command starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

END = signal.SIGUSR1
"""to a reaper: kill the command and all that came of it, now"""
PASSED_ON = (signal.SIGTERM, signal.SIGINT)
PAUSE_S = 0.02
_WATCHED = (END, signal.SIGCHLD, *PASSED_ON)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def reaped(command: Sequence[str]) -> list[str]:
    """Return the words that run `command` below a reaper of this process. Send signals to the reaper only."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """Let SIGKILL end this process when the thread that started it ends; at once when `parent` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(parent: int, command: Sequence[str]) -> None:
    """Run the command; does not return."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command's own core dump is enough
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    _prctl(_PR_SET_PDEATHSIG, END)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(1)
    status = _wait(_start(command, before))
    _end_descendants()
    _exit_like(signal.SIGKILL if status is None else status)


def _start(command: Sequence[str], mask: set[int | signal.Signals]) -> int:
    """Fork and exec in a process group of its own. An error goes to stderr, with the shell's exit status 127."""
    reaper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with(reaper)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"'{command[0]}' can't be run: {error.strerror}\n".encode())
    os._exit(127)


def _wait(child: int) -> int | None:
    """Return the wait status of the command, None when END came first."""
    while (number := signal.sigwait(_WATCHED)) != END:
        if number in PASSED_ON:
            _kill_group(child, number)
        for pid, status in iter(_reap, (0, 0)):
            if pid == child:
                return status
    return None


def _kill_group(child: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the child has done it, and has called exec or ended since
        os.setpgid(child, child)
    os.killpg(child, number)


def _reap() -> tuple[int, int]:
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def _end_descendants() -> None:
    """Kill until there is no child: those of a killed one become ours."""
    while True:
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait(_WATCHED, PAUSE_S)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found = children.get(ancestor, [])
    for pid in found:  # grows while it is walked
        found += children.get(pid, [])
    return found


def _exit_like(status: int) -> None:
    """End as the command did, by the same signal where it was one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os._exit(os.WEXITSTATUS(status))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
