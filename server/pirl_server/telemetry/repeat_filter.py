"""Rate-limits repeated log lines: ten of a kind at once, then one every ten seconds.

A kind is the logger, the level, the RPC and the text before its values are filled in. The next line that passes says
how many were left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BURST, INTERVAL_S = 10, 10.0
MAX_KINDS = 1024
REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED")
"""codes that any caller can cause at any rate"""


@dataclass
class _Kind:
    left: int = BURST
    since: float = 0.0
    left_out: int = 0


class Repeats(logging.Filter):
    """Lets warnings, errors and rejected calls pass at a bounded rate, everything else as it comes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._lock = clock, threading.Lock()
        self._kinds: OrderedDict[tuple[str, int, str], _Kind] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is written; it gets `left_out` among what it is about where lines were."""
        about = getattr(record, "about", {})
        if record.levelno < logging.WARNING and about.get("code") not in REFUSED:
            return True
        with self._lock:
            text = f"{about.get('rpc', '')} {about.get('code', '')} {record.msg}"[:200]
            kind = self._kind((record.name, record.levelno, text))
            if kind.left <= 0:
                kind.left_out += 1
                return False
            kind.left -= 1
            left_out, kind.left_out = kind.left_out, 0
        if left_out:
            record.about = about | {"left_out": str(left_out)}
        return True

    def _kind(self, key: tuple[str, int, str]) -> _Kind:
        now = self._clock()
        kind = self._kinds.setdefault(key, _Kind(since=now))
        self._kinds.move_to_end(key)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        earned = int((now - kind.since) / INTERVAL_S)
        kind.left, kind.since = min(BURST, kind.left + earned), kind.since + earned * INTERVAL_S
        return kind
