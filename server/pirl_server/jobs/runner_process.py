"""The process that works a server's jobs off: `python -m pirl_server.jobs.runner_process ROOT ... -- COMMAND ...`.

It reads `cancel ID` and `wake` from its standard input, whose end is its own, and writes what keeps jobs from being
run to its standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from pirl_server.jobs.executor import LocalExecutor
from pirl_server.jobs.runner import Graces, Runner
from pirl_server.jobs.store import JobStore

MODULE = "pirl_server.jobs.runner_process"


def arguments(
    root: Path, put_away: Path, devices: tuple[str, ...], graces: Graces, command: tuple[str, ...]
) -> list[str]:
    """Return the words that start it."""
    seconds = [f"{each:g}" for each in (graces.cancel_s, graces.pause_s, graces.close_s)]
    named = [word for device in devices for word in ("--device", device)]
    return [sys.executable, "-m", MODULE, str(root), str(put_away), "--graces", *seconds, *named, "--", *command]


class _Report:
    """Writes a line whenever something has changed."""

    def __init__(self, store: JobStore) -> None:
        self._store, self._last = store, ""

    def __call__(self, trouble: str) -> None:
        line = json.dumps({"trouble": trouble, "damaged": self._store.damaged}, sort_keys=True)
        if line != self._last:
            self._last = line
            with suppress(OSError):  # the server is gone, and this process will be in a moment
                print(line, flush=True)


def _listen(runner: Runner) -> None:
    for line in sys.stdin:
        word, _, job_id = line.strip().partition(" ")
        if word == "cancel":
            runner.cancel(job_id)
        runner.wake()
    runner.close()


def main() -> None:
    """Read the command line, and run until SIGTERM or the end of the input."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("root", type=Path)
    parser.add_argument("put_away", type=Path)
    parser.add_argument("--graces", type=float, nargs=3)
    parser.add_argument("--device", action="append")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    store = JobStore(options.root, options.put_away)
    executor = LocalExecutor(options.command, options.root)
    graces = Graces(*options.graces)
    runner = Runner(options.root, store, executor, options.device, graces, options.put_away, _Report(store))
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    threading.Thread(target=_listen, args=(runner,), name="input", daemon=True).start()
    runner.run()
    store.close()


if __name__ == "__main__":
    main()
