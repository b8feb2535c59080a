"""What decides about versions on robots by itself: the watch after promotions, and blinded comparisons."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_server.watch.ab_runner import AbRunner
from pirl_server.watch.monitor import PromotionMonitor


@dataclass(frozen=True)
class Deciding:
    """Both, where this server has them."""

    monitor: PromotionMonitor | None = None
    """None: promotions are not watched"""
    ab: AbRunner | None = None
    """None: no versions are compared"""

    def close(self) -> None:
        """Decide no more; what is under way continues with the next server."""
        if self.monitor is not None:
            self.monitor.close()
        if self.ab is not None:
            self.ab.close()
