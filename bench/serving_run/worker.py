"""A process that is told what to do: JSON requests on stdin, one reply a line on stdout. numpy-free, for any Python.

{"do": NAME, ...} is answered by {"result": ...} or {"error": TEXT}; an end of file ends the process. Every process
also answers "cpu" (seconds of all its threads) and "memory" (resident bytes, open files).
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Handlers = dict[str, Callable[..., Any]]


def memory() -> dict[str, int]:
    """Resident bytes and open file descriptors of this process."""
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"resident": resident, "files": len(os.listdir("/proc/self/fd"))}


def work(handlers: Handlers) -> None:
    """Answer until stdin ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not stand between the replies
    handlers = handlers | {"cpu": time.process_time, "memory": memory}
    print(json.dumps({"result": "ready"}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": handlers[request.pop("do")](**request)}
        except Exception as error:  # told to the process that asked
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)
