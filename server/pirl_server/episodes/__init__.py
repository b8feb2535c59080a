"""The episode store: one immutable Zarr v3 group per episode, published whole or not at all."""

from pirl_server.episodes.episode import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.file_rows import FileRows
from pirl_server.episodes.store import EpisodeStore, EpisodeSummary

__all__ = ["Calls", "Episode", "EpisodeInfo", "EpisodeStore", "EpisodeSummary", "FileRows", "Steps"]
