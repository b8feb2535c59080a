"""Filtered behaviour cloning: flow matching on what succeeded, and on whatever a human did.

The floor that other methods are compared with: it needs no critic and no density, and learns nothing from failures.
What the policy did before a takeover is left out, for the success was the human's.

Shape letters: M windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from pirl_server.config.training import MixtureConfig
from pirl_server.episodes.schema import Episode
from pirl_server.training.chunk_dataset import ChunkDataset
from pirl_server.training.episode_dataset import EpisodeWindows, episode_windows
from pirl_server.training.episode_log import MoreEpisodesNeededError
from pirl_server.training.episode_rl.methods.method import FlowMatchingMethod
from pirl_server.training.window_mixture import sampling_share


def worth_imitating(data: EpisodeWindows) -> Tensor:
    """Which windows [M] bool: the policy's that led to success, and every human's."""
    return data.human | (data.outcome == 1.0)


class FilteredBc(FlowMatchingMethod[ChunkDataset]):
    """See `Method`."""

    name = "filtered behaviour cloning"

    def prepare(self, episodes: Sequence[Episode]) -> ChunkDataset:
        """Windows of which only the good ones are drawn. Raises MoreEpisodesNeededError when there is none."""
        data = episode_windows(self.policy, episodes)
        good = worth_imitating(data)
        if not good.any():
            raise MoreEpisodesNeededError(
                f"none of {len(data.infos)} episodes succeeded and no human drove: there is nothing to imitate; take"
                " over on the robot, or give demonstrations"
            )
        self.progress.metrics(
            windows=float(len(data)), imitated=float(good.sum()), of_humans=float((good & data.human).sum())
        )
        return replace(data.windows, share=sampling_share(data, self.mixture, good))

    @property
    def mixture(self) -> MixtureConfig:
        """What share of each batch humans have."""
        return self.config
