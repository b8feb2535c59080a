"""The directory of episodes: staged, sealed with a manifest, then renamed into place, so publishing is atomic.

root/staging/<id>/                       what a killed writer leaves; swept when a recorder starts
root/staging/<id>.open/                  calls of an episode that still runs, when they are too many for memory
root/episodes/<robot>/<id>/MANIFEST.json
                          /episode.zarr.zip  the arrays; those of version 1 are a directory, episode.zarr
root/labels.jsonl                        labels given after publication: the newest counts, the episode stays sealed
root/datasets/<name>.json                lists of episodes that are never changed
root/proposals.jsonl                     labels that a success model proposes, see proposals.py
root/readers/                            which episodes running jobs read
root/index.sqlite                        what lists show, rebuilt from the manifests and labels where it is missing
../quarantine/<root>/<id>                damaged episodes, each with its reason in <id>.reason.txt beside it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import cast

from pirl_contract import ControlSource
from pirl_server.atomic_files import check_name, make_folder, sync, utc_now
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes import manifest
from pirl_server.episodes.datasets import Datasets, Frozen
from pirl_server.episodes.image_codecs import ImageArray
from pirl_server.episodes.index import ID, Cursor, EpisodeIndex
from pirl_server.episodes.index_rows import EpisodeEntry
from pirl_server.episodes.labels import Label, LabelLog, before_last
from pirl_server.episodes.leases import Leases
from pirl_server.episodes.manifest import DamagedError, UnreadableError
from pirl_server.episodes.proposals import ProposalLog
from pirl_server.episodes.quarantined import Quarantined
from pirl_server.episodes.query import Condition, Learning, conditions
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.step_masks import targets
from pirl_server.episodes.summary import EARLIER_GROUP, GROUP, EpisodeSummary, read_record, read_summary
from pirl_server.episodes.zarr_layout import EpisodeFile, read_group, write_group

GROUPS = (GROUP, EARLIER_GROUP)
MAX_DEGRADED = 20
LEAST_FREE = 256 * 2**20
"""a long episode with two cameras"""
ANY = EpisodeSelection()


@dataclass(frozen=True)
class Page:
    """Part of a list, newest first."""

    entries: Sequence[EpisodeEntry]
    more: bool


class OutdatedError(ValueError):
    """The episode is not in the state that the caller expects: another label came first."""


class EpisodeStore:
    """Episodes on disk. Any number of processes may read and write; a published episode never changes but its label.

    With less than `least_free` bytes on the disk there is no room for another one.
    """

    def __init__(self, root: Path, least_free: int = LEAST_FREE) -> None:
        self.root, self.least_free = root, least_free
        self._staging, self._published = root / "staging", root / "episodes"
        make_folder(self._staging)
        make_folder(self._published)
        self._quarantined = Quarantined(root)
        self._labels = LabelLog(root / "labels.jsonl")
        self._index = EpisodeIndex(root, self._published, self._labels, self._quarantined)
        self.datasets, self.leases, self.proposals = Datasets(root), Leases(root), ProposalLog(root)

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

    def no_room(self) -> str:
        """Say why no further episode can be kept; empty: it can."""
        try:
            free = self.free_bytes()
        except OSError as error:
            return f"the disk of the episodes can't be read: {error.strerror}"
        if not os.access(self._staging, os.W_OK):
            return "the folder of the episodes can't be written to: mount it writable"
        if free < self.least_free:
            left, kept = free >> 20, self.least_free >> 20
            fix = "free some, for example with pirl episodes prune"
            return f"{left} MiB of disk space left, {kept} MiB are kept for an episode: {fix}"
        return ""

    def totals(self) -> tuple[int, int]:
        """Return how many episodes there are, and their bytes."""
        self._index.refresh()
        return self._index.totals()

    def remove(self, episode_id: str) -> None:
        """Remove an episode for good: gone as a whole, or there as a whole. Raises KeyError for an unknown id."""
        home, staged = self._home(episode_id), self._staging / f"{episode_id}.removed"
        os.rename(home, staged)
        sync(home.parent)
        self._index.remove(episode_id)
        shutil.rmtree(staged)

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
        before = self._index.folder(episode.info.robot_id)
        try:
            summary = read_summary(home)
        except (DamagedError, UnreadableError):
            self._place(episode, summary, home)
        sync(home.parent)
        sync(self._published)
        with suppress(ValueError, OSError):  # the next list finds it
            self._index.add(read_record(home), before)
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
        """Bring the index up to date now, so that the first list does not wait for it."""
        with suppress(OSError):
            self._index.refresh()

    def list(self, robot_id: str | None = None) -> list[EpisodeSummary]:
        """Return the published episodes that can be read, newest first; the others are named in `damaged`."""
        if robot_id is not None:
            check_name("robot id", robot_id)
        chosen = ANY if robot_id is None else EpisodeSelection(robots=(robot_id,))
        return [each.summary for each in self.select(chosen)]

    def newest_first(self) -> Iterator[EpisodeSummary]:
        """Return the same one by one, for a caller that needs the newest only.

        Raises TimeoutError while the summaries are read the first time.
        """
        return (each.summary for each in self.select(ANY))

    def select(self, selection: EpisodeSelection, learning: Learning | None = None) -> Iterator[EpisodeEntry]:
        """Return the episodes of a selection, newest first, one by one: its limit is the caller's to count.

        Raises TimeoutError while the summaries are read the first time.
        """
        self._index.refresh()
        return self._index.walk(self._conditions(selection, learning))

    def left_out(self, selection: EpisodeSelection, learning: Learning | None = None) -> dict[str, int]:
        """Count the episodes by why a selection leaves them out; those that it keeps by ''. Its limit counts for none.

        Raises TimeoutError while the summaries are read the first time.
        """
        self._index.refresh()
        return self._index.left_out(self._conditions(selection, learning))

    def page(self, selection: EpisodeSelection, limit: int, after: str | Cursor | None = None) -> Page:
        """Return up to `limit` episodes older than `after`, newest first.

        `after` is an episode's id, or where it stood. Raises KeyError when there is no such id, TimeoutError while the
        summaries are read the first time.
        """
        self._index.refresh()
        found = self._conditions(selection)
        cursor = self._entry(after).cursor if isinstance(after, str) else after
        entries = self._index.select(found, limit + 1, cursor)
        if self._index.changed(entries):
            entries = self._index.select(found, limit + 1, cursor)
        return Page(entries[:limit], len(entries) > limit)

    def _conditions(self, selection: EpisodeSelection, learning: Learning | None = None) -> Sequence[Condition]:
        proposed = () if selection.proposal == "any" else self.proposals.ids(selection.proposal)
        return conditions(selection, datetime.now(timezone.utc), learning, proposed)

    @property
    def damaged(self) -> dict[str, str]:
        """Ids of the episodes that could not be read since the start, and why."""
        return dict(self._index.damaged)

    @property
    def degraded(self) -> Sequence[str]:
        """What was found damaged, one line each. Never waits for the disk."""
        lines = [f"episodes: {episode_id}: {why}" for episode_id, why in sorted(self.damaged.items())]
        lines += [f"labels: {why}" for why in self._index.labels.damaged]
        lines += [f"proposals: {why}" for why in self.proposals.damaged]
        return lines if len(lines) <= MAX_DEGRADED else [*lines[:MAX_DEGRADED], f"episodes: {len(lines)} in all"]

    def summary(self, episode_id: str) -> EpisodeSummary:
        """Return one summary. Raises KeyError for an unknown id and for an episode that can't be read."""
        return self._entry(episode_id).summary

    def entry(self, episode_id: str) -> EpisodeEntry:
        """Return one summary with what is known beside it. Raises as `summary`."""
        return self._entry(episode_id)

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
            raise DamagedError(self._quarantined.put_away(home, error)) from None
        found = self._entry(episode_id).summary
        return replace(episode, info=replace(episode.info, success=found.success, label_source=found.label_source))

    def parts(self, episode_id: str) -> EpisodeFile:
        """Open an episode to read it in parts, each of which is checked when it is read; close it.

        Raises KeyError for an unknown id, and as `EpisodeFile`.
        """
        return EpisodeFile(self.root / self._entry(episode_id).summary.path)

    def open_frozen(self, frozen: Frozen, lazily: bool = False, check: bool = False) -> Episode:
        """Read an episode of a dataset, with the label that was frozen with it.

        Raises UnreadableError that names it when it is missing or is not what was frozen, and as `open`.
        """
        try:
            if self.digest(frozen.id) != frozen.digest:
                raise UnreadableError(f"episode '{frozen.id}' is not the one that was frozen: its manifest differs")
            episode = self.open(frozen.id, lazily, check)
        except KeyError:
            raise UnreadableError(f"episode '{frozen.id}' is missing") from None
        return replace(episode, info=replace(episode.info, success=frozen.success, label_source=frozen.label_source))

    def digest(self, episode_id: str) -> str:
        """Return the SHA-256 of an episode's manifest, which names that of each of its files.

        Of a migrated episode that of its manifest before. Raises KeyError for an unknown id, and as `manifest.read`.
        """
        return manifest.read(self._home(episode_id)).digest

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the digests of those of these that are there, by id. Raises TimeoutError as `select`."""
        self._index.refresh()
        return self._index.digests(ids)

    def label(
        self,
        episode_id: str,
        success: bool | None,
        source: str,
        note: str = "",
        author: str = "",
        expected: str | None = None,
    ) -> bool | None:
        """Relabel a published episode, None to retract its label; return the previous label.

        `expected` is the entry's `etag` that the caller has seen. Raises KeyError for an unknown id, OutdatedError when
        the label, or the episode, is not what was expected.
        """
        previous = None

        def make() -> tuple[str, Label]:
            nonlocal previous
            previous = self.expect(episode_id, expected).summary.success
            return episode_id, Label(success, source if success is not None else "", note, author, utc_now())

        self.expect(episode_id, expected)  # before the log is touched
        self._labels.append(make)
        return previous

    def note_label(self, episode_id: str, success: bool | None, source: str, note: str, author: str = "") -> None:
        """Add the label of an episode that is being published: it counts from then on."""
        made = Label(success, source if success is not None else "", note, author, utc_now())
        self._labels.append(lambda: (episode_id, made))

    def undo(self, episode_id: str, author: str = "", expected: str | None = None) -> EpisodeSummary:
        """Take the newest label back that was not undone; return the summary with the label that counts again.

        Raises as `label`, and ValueError when only the label is left that the episode was published with.
        """

        def make() -> tuple[str, Label]:
            self.expect(episode_id, expected)
            back = before_last(self._labels.history(episode_id), self.published_label(episode_id))
            return episode_id, replace(back, author=author, at=utc_now())

        self.expect(episode_id, expected)
        self._labels.append(make)
        return self.summary(episode_id)

    def labels(self, episode_id: str) -> Sequence[Label]:
        """Return all labels of an episode, oldest first: that of the sealed episode, then those of the log.

        Raises KeyError for an unknown id.
        """
        return [self.published_label(episode_id), *self._labels.history(episode_id)]

    def published_label(self, episode_id: str) -> Label:
        """Return the label that an episode was published with. Raises KeyError as `summary`."""
        try:
            said = read_summary(self._home(episode_id))
        except (DamagedError, UnreadableError) as error:
            raise KeyError(episode_id) from error
        return Label(said.success, said.label_source, at=said.created)

    def expect(self, episode_id: str, expected: str | None) -> EpisodeEntry:
        """Return the entry when its `etag` is this one, or None is expected. Raises KeyError, OutdatedError."""
        entry = self._entry(episode_id)
        if expected not in (None, entry.etag):
            raise OutdatedError(f"episode '{episode_id}' is at '{entry.etag}' now, not at '{expected}': look again")
        return entry

    def _entry(self, episode_id: str) -> EpisodeEntry:
        home, found = self._home(episode_id), self._index.find(episode_id)
        if found is not None:
            return found
        try:
            return self._index.entry_of(read_record(home))
        except (DamagedError, UnreadableError) as error:
            raise KeyError(episode_id) from error

    def _home(self, episode_id: str) -> Path:
        matches = list(self._published.glob(f"*/{episode_id}")) if ID.fullmatch(episode_id) else []
        if len(matches) != 1 or matches[0].is_symlink() or matches[0].parent.is_symlink():
            raise KeyError(episode_id)
        return matches[0]


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
    counted = _summarise(episode, summary.path)
    if summary.targets is None:  # of an earlier version
        counted = replace(counted, targets=None, human_steps=None)
    if counted != summary:
        raise DamagedError(f"'{home / manifest.NAME}' was changed after publishing: not the summary of its data")
    return episode


def _fault(home: Path, why: str) -> DamagedError | UnreadableError:
    """What is wrong with an episode that can't be read: its files were changed, or another version wrote them so."""
    try:
        manifest.verify(home, GROUPS)
    except DamagedError:
        return DamagedError(why)
    return UnreadableError(why)


def _summarise(episode: Episode, path: str) -> EpisodeSummary:
    info, target_T = episode.info, targets(episode.steps)
    human_T = episode.steps.source == int(ControlSource.HUMAN)
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
        targets=int(target_T.sum()),
        human_steps=int((target_T & human_T).sum()),
    )
