"""Dataset aggregation with takeovers (arXiv 1011.0686, 1810.02890): what a human did where the policy went wrong.

Corrections of every version in the log are aggregated and count alike, however old: a person's answer to a state does
not age, and the log grows from round to round. They have a stated share of each batch; the policy's own successes have
the rest, and keep it near what it can do already.
"""

from __future__ import annotations

from dataclasses import replace

from pirl_server.config.training import MixtureConfig
from pirl_server.training.episode_rl.methods.filtered_bc import FilteredBc

TAKEOVER_SHARE = 0.5
"""where the config states none"""


class Dagger(FilteredBc):
    """See `Method`; it rejects a log without a takeover."""

    name = "dataset aggregation with takeovers"

    @property
    def mixture(self) -> MixtureConfig:
        """Half of each batch from takeovers, unless the config says otherwise."""
        return replace(self.config, takeover_share=self.config.takeover_share or TAKEOVER_SHARE)
