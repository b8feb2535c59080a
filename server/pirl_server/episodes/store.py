"""The directory of episodes: staged, sealed with a manifest, then renamed into place, so publishing is atomic.

root/staging/<id>/                       what a killed writer leaves; swept when a recorder starts
root/staging/<id>.open/                  calls of an episode that still runs, when they are too many for memory
root/episodes/<robot>/<id>/MANIFEST.json
                          /episode.zarr.zip  the arrays; those of version 1 are a directory, episode.zarr
root/labels.jsonl                        labels given after publication: the newest counts, the episode stays sealed
../quarantine/<root>/<id>                damaged episodes, each with its reason in <id>.reason.txt beside it
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import cast

from pirl_server.atomic_files import check_name, quarantine, sync
from pirl_server.episodes import manifest
from pirl_server.episodes.image_codecs import ImageArray
from pirl_server.episodes.index import ID, EpisodeIndex
from pirl_server.episodes.labels import Label, Labels
from pirl_server.episodes.manifest import DamagedError, UnreadableError
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.summary import EARLIER_GROUP, GROUP, EpisodeSummary, read_summary
from pirl_server.episodes.zarr_layout import EpisodeFile, read_group, write_group

SETTLED_S = 60.0
"""a damaged episode whose manifest is newer stays where it is"""
GROUPS = (GROUP, EARLIER_GROUP)
MAX_DEGRADED = 20
_LOG = logging.getLogger(__name__)


class EpisodeStore:
    """Episodes on disk. Any number of processes may read and write; a published episode never changes but its label."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._staging, self._published = root / "staging", root / "episodes"
        self._staging.mkdir(parents=True, exist_ok=True)
        self._published.mkdir(exist_ok=True)
        self._quarantine = root.with_name("quarantine") / root.name
        self._index = EpisodeIndex(self._published, self._put_away, self._left)
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
        if not ID.fullmatch(episode.info.id):
            raise ValueError(f"episode id {episode.info.id!r} must be 32 hexadecimal digits")
        home = self._published / episode.info.robot_id / episode.info.id
        summary = _summarise(episode, (home / GROUP).relative_to(self.root).as_posix())
        try:
            summary = read_summary(home)
        except (DamagedError, UnreadableError):
            self._place(episode, summary, home)
        sync(home.parent)
        sync(self._published)
        return summary

    def _place(self, episode: Episode, summary: EpisodeSummary, home: Path) -> None:
        staged = self._staging / episode.info.id
        try:
            staged.mkdir()
            write_group(staged / GROUP, episode)
            manifest.seal(staged, asdict(summary))
            home.parent.mkdir(exist_ok=True)
            os.rename(staged, home)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def warm_up(self) -> None:
        """Read all summaries now, so that the first list does not wait for them."""
        with suppress(OSError):
            self._index.newest_first()

    def list(self, robot_id: str | None = None) -> list[EpisodeSummary]:
        """Return the published episodes that can be read, newest first; the others are named in `damaged`."""
        if robot_id is not None:
            check_name("robot id", robot_id)
        return [each for each in self.newest_first() if robot_id in (None, each.robot_id)]

    def newest_first(self) -> Iterator[EpisodeSummary]:
        """Return the same one by one, for a caller that needs the newest only.

        Raises TimeoutError while the summaries are read the first time.
        """
        labels = self._labels.newest()
        return (_labelled(each, labels) for each in self._index.newest_first())

    def page(
        self, after: str | None, limit: int, robot_id: str | None = None, success: bool | None = None
    ) -> tuple[Sequence[EpisodeSummary], bool]:
        """Return up to `limit` episodes older than `after`, newest first, and whether there are more.

        Raises KeyError when there is no episode `after`, TimeoutError while the summaries are read the first time.
        """
        labels, listed = self._labels.newest(), self._index.newest_first(after)
        labelled = (_labelled(each, labels) for each in listed if robot_id in (None, each.robot_id))
        found = list(islice((each for each in labelled if success is None or each.success is success), limit + 1))
        return found[:limit], len(found) > limit

    @property
    def damaged(self) -> dict[str, str]:
        """Ids of the episodes that could not be read since the start, and why."""
        return dict(self._index.damaged)

    @property
    def degraded(self) -> Sequence[str]:
        """What was found damaged, one line each. Never waits for the disk."""
        lines = [f"episodes: {episode_id}: {why}" for episode_id, why in sorted(self.damaged.items())]
        lines += [f"labels: {why}" for why in self._labels.damaged]
        return lines if len(lines) <= MAX_DEGRADED else [*lines[:MAX_DEGRADED], f"episodes: {len(lines)} in all"]

    def summary(self, episode_id: str) -> EpisodeSummary:
        """Return one summary. Raises KeyError for an unknown id and for an episode that can't be read."""
        home = self._home(episode_id)
        found = self._index.known(episode_id)
        try:
            return _labelled(found or read_summary(home), self._labels.newest())
        except (DamagedError, UnreadableError) as error:
            raise KeyError(episode_id) from error

    def open(self, episode_id: str, lazily: bool = False, check: bool = False) -> Episode:
        """Read an episode; a changed byte is found before it is returned, by the check of each part that is read.

        `lazily`: images are read, and checked, when they are indexed (`image_codecs.ImageArray`): a changed one raises
        `zip_members.ChangedError` then. The episode holds a file descriptor. With `check` they are compared now as
        well, a few at a time.

        Raises KeyError for an unknown id, DamagedError when a file was changed: the episode is put into quarantine, as
        it is when a list meets it. Raises UnreadableError, and leaves it, when a file is missing or of another version.
        """
        home = self._home(episode_id)
        try:
            episode = _read_whole(home, lazily, check)
        except DamagedError as error:
            raise DamagedError(self._put_away(home, error)) from None
        label = self._labels.newest().get(episode_id)
        if label is None:
            return episode
        return replace(episode, info=replace(episode.info, success=label.success, label_source=label.source))

    def digest(self, episode_id: str) -> str:
        """Return the SHA-256 of an episode's manifest, which names that of each of its files.

        Of a migrated episode that of its manifest before. Raises KeyError for an unknown id, and as `manifest.read`.
        """
        return manifest.read(self._home(episode_id)).digest

    def label(self, episode_id: str, success: bool | None, source: str, note: str = "") -> bool | None:
        """Relabel a published episode, None to retract its label; return the previous label.

        Raises KeyError for an unknown id.
        """
        previous = self.summary(episode_id).success
        self._labels.append(episode_id, Label(success, source if success is not None else ""), note)
        return previous

    def _home(self, episode_id: str) -> Path:
        matches = list(self._published.glob(f"*/{episode_id}")) if ID.fullmatch(episode_id) else []
        if len(matches) != 1 or matches[0].is_symlink() or matches[0].parent.is_symlink():
            raise KeyError(episode_id)
        return matches[0]

    def _put_away(self, home: Path, error: DamagedError) -> str:
        """Move a damaged episode into quarantine, unless it is so new that it may be a copy on its way; say why."""
        try:
            if time.time() - (home / manifest.NAME).stat().st_mtime < SETTLED_S:
                return str(error)
            moved = quarantine(home, self._quarantine, str(error))
        except OSError as refused:
            return f"{error}; it can't be moved to '{self._quarantine}': {refused.strerror}"
        _LOG.error("%s; it was moved to '%s'", error, moved)
        return f"{error}; it was moved to '{moved}'"

    def _left(self, episode_id: str) -> str | None:
        """Return why an episode was put into quarantine, by this process or a job."""
        path = self._quarantine / f"{episode_id}.reason.txt"
        with suppress(OSError):
            return f"'{path}': {path.read_text(errors='replace').strip()}"
        return None


def _read_whole(home: Path, lazily: bool, check: bool) -> Episode:
    """Read an episode as it was published. Raises DamagedError, UnreadableError."""
    summary, sealed = read_summary(home), manifest.read(home)
    path = home / Path(summary.path).name
    if path.name == EARLIER_GROUP or not sealed.checked:  # the arrays, or the manifest, have no checks of their own
        manifest.verify(home, GROUPS)
    manifest.check_names(home, sealed, GROUPS)
    try:
        episode = EpisodeFile(path).episode() if lazily else read_group(path)
        if lazily and check:
            for images in episode.calls.images.values():
                cast("ImageArray", images).check()
    except (ValueError, KeyError, TypeError) as error:
        raise _fault(home, f"'{path}' can't be read: {error}") from None
    if _summarise(episode, summary.path) != summary:
        raise DamagedError(f"'{home / manifest.NAME}' was changed after publishing: not the summary of its data")
    return episode


def _fault(home: Path, why: str) -> DamagedError | UnreadableError:
    """What is wrong with an episode that can't be read: its files were changed, or another version wrote them so."""
    try:
        manifest.verify(home, GROUPS)
    except DamagedError:
        return DamagedError(why)
    return UnreadableError(why)


def _labelled(summary: EpisodeSummary, labels: Mapping[str, Label]) -> EpisodeSummary:
    label = labels.get(summary.id)
    return summary if label is None else replace(summary, success=label.success, label_source=label.source)


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
