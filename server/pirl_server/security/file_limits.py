"""Limit of open files, and each port's share of it.

A connection is a descriptor, and so is the shared memory of a robot, a file of an episode, a pipe to a job. A door that
may take all of them takes them from the robots.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
MAX_DESCRIPTORS = 65_536
MIN_DESCRIPTORS = 256
"""below this the shares are too small to be of use"""


@dataclass(frozen=True)
class Shares:
    """Connections that each door may hold. What is left over belongs to shared memory, episodes, jobs and logs."""

    rest: int
    stop: int
    openpi: int
    grpc: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.rest + self.stop + self.openpi + self.grpc


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, at most MAX_DESCRIPTORS, and return what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    limit = current_limit()
    if limit < MIN_DESCRIPTORS:
        _LOG.warning("the limit of %d open files is too low: raise `ulimit -Hn` to 4096", limit)
    return limit


def current_limit() -> int:
    """Return how many files the process may have open, at most MAX_DESCRIPTORS."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MAX_DESCRIPTORS)


def shares(limit: int) -> Shares:
    """Divide a limit of open files: eleven sixteenths at most go to the doors."""
    return Shares(
        rest=max(8, min(512, limit // 4)),
        stop=max(8, min(256, limit // 8)),
        openpi=max(8, min(512, limit // 8)),
        grpc=max(8, min(2048, limit * 3 // 16)),
    )
