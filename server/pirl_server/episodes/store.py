"""The directory of episodes: staged, sealed with a manifest, then renamed into place, so publishing is atomic.

root/staging/<id>/                       what a killed writer leaves; swept when a recorder starts
root/staging/<id>.open/                  calls of an episode that still runs, when they are too many for memory
root/episodes/<robot>/<id>/MANIFEST.json
                          /episode.zarr  the group; the manifest lies beside it, where Zarr does not list it
root/labels.jsonl                        labels given after publication: the newest counts, the episode stays sealed
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pirl_server.atomic_files import check_name, sync
from pirl_server.episodes import manifest
from pirl_server.episodes.labels import Label, Labels
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.zarr_layout import read_group, write_group

GROUP = "episode.zarr"
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class EpisodeSummary:
    """What a list of episodes shows; kept in the manifest, so that listing opens no array."""

    id: str
    robot_id: str
    created: str
    instruction: str
    success: bool | None
    label_source: str
    end_reason: str
    sampler: str
    contract_hash: str
    policy_versions: tuple[str, ...]
    calls: int
    steps: int
    path: str
    """of the Zarr group, relative to the store"""
    dry_run: bool = False
    """nothing reached an arm; no learner reads it"""


class EpisodeStore:
    """Episodes on disk. Any number of processes may read and write; a published episode never changes but its label."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging, self._published = root / "staging", root / "episodes"
        self._staging.mkdir(parents=True, exist_ok=True)
        self._published.mkdir(exist_ok=True)
        self._known: dict[Path, EpisodeSummary] = {}
        self._labels = Labels(root / "labels.jsonl")

    def sweep(self) -> int:
        """Remove what killed writers left in staging and return how many; for the one writer of a store only."""
        left = list(self._staging.iterdir())
        for directory in left:
            shutil.rmtree(directory)
        return len(left)

    def scratch(self, episode_id: str) -> Path:
        """Where the writer may keep what it has of an unpublished episode; not made here, and swept like the rest."""
        return self._staging / f"{episode_id}.open"

    def free_bytes(self) -> int:
        """How much room its disk has."""
        return shutil.disk_usage(self.root).free

    def write(self, episode: Episode) -> EpisodeSummary:
        """Publish an episode. When this returns it is on the disk; when it raises it may be written again.

        Nothing is visible then, unless the disk failed after the renaming: the next attempt finds it in its place.
        Raises ValueError for an id that is not 32 hexadecimal digits.
        """
        check_name("robot id", episode.info.robot_id)
        if not _ID.fullmatch(episode.info.id):
            raise ValueError(f"episode id {episode.info.id!r} must be 32 hexadecimal digits")
        home = self._published / episode.info.robot_id / episode.info.id
        summary = _summarise(episode, (home / GROUP).relative_to(self.root).as_posix())
        if (found := self._summary(home)) is None:
            self._place(episode, summary, home)
        sync(home.parent)
        sync(self._published)
        return found or summary

    def _place(self, episode: Episode, summary: EpisodeSummary, home: Path) -> None:
        staged = self._staging / episode.info.id
        try:
            write_group(staged / GROUP, episode)
            manifest.seal(staged, asdict(summary))
            home.parent.mkdir(exist_ok=True)
            os.rename(staged, home)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def list(self, robot_id: str | None = None) -> list[EpisodeSummary]:
        """Return the published episodes, newest first. Torn and foreign directories are never among them."""
        if robot_id is not None:
            check_name("robot id", robot_id)
        homes = [
            home
            for home in self._published.glob(f"{robot_id or '*'}/*")
            if _ID.fullmatch(home.name) and not home.is_symlink()
        ]
        found = [summary for home in homes if (summary := self._summary(home)) is not None]
        return sorted(found, key=lambda summary: (summary.created, summary.id), reverse=True)

    def summary(self, episode_id: str) -> EpisodeSummary:
        """Return one summary. Raises KeyError for an unknown id."""
        found = self._summary(self._home(episode_id))
        if found is None:
            raise KeyError(episode_id)
        return found

    def open(self, episode_id: str) -> Episode:
        """Read an episode after checking it against its manifest.

        Raises KeyError for an unknown id, ValueError when a file was damaged.
        """
        home = self._home(episode_id)
        manifest.verify(home)
        episode, label = read_group(home / GROUP), self._labels.newest(episode_id)
        if label is None:
            return episode
        return replace(episode, info=replace(episode.info, success=label.success, label_source=label.source))

    def digest(self, episode_id: str) -> str:
        """Return the SHA-256 of an episode's manifest, which names that of each of its files. KeyError: unknown id."""
        return hashlib.sha256((self._home(episode_id) / manifest.NAME).read_bytes()).hexdigest()

    def label(self, episode_id: str, success: bool | None, source: str, note: str = "") -> bool | None:
        """Relabel a published episode, None to retract its label; return the previous label.

        Raises KeyError for an unknown id.
        """
        previous = self.summary(episode_id).success
        self._labels.append(episode_id, Label(success, source if success is not None else ""), note)
        return previous

    def _home(self, episode_id: str) -> Path:
        matches = list(self._published.glob(f"*/{episode_id}")) if _ID.fullmatch(episode_id) else []
        if len(matches) != 1 or matches[0].is_symlink() or matches[0].parent.is_symlink():
            raise KeyError(episode_id)
        return matches[0]

    def _summary(self, home: Path) -> EpisodeSummary | None:
        if home not in self._known:
            found = manifest.read(home)
            if found is None:
                return None
            raw: dict[str, Any] = found["summary"] | {"policy_versions": tuple(found["summary"]["policy_versions"])}
            self._known[home] = EpisodeSummary(**raw)
        if not home.is_dir():
            return None
        known, label = self._known[home], self._labels.newest(home.name)
        return known if label is None else replace(known, success=label.success, label_source=label.source)


def _summarise(episode: Episode, path: str) -> EpisodeSummary:
    info = episode.info
    return EpisodeSummary(
        id=info.id,
        robot_id=info.robot_id,
        created=info.created,
        instruction=info.instruction,
        success=info.success,
        label_source=info.label_source,
        end_reason=info.end_reason,
        sampler=episode.sampler,
        contract_hash=info.contract.hash,
        policy_versions=info.policy_versions,
        calls=len(episode.calls.step),
        steps=len(episode.steps.reward),
        path=path,
        dry_run=info.dry_run,
    )
