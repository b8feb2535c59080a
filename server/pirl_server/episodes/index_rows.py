"""Rows of the index: a record of an episode as columns and back, with the label that counts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pirl_server.config.episodes import parse_time
from pirl_server.episodes.index_database import COLUMNS, LABEL_COLUMNS, LABELS, crc_of
from pirl_server.episodes.summary import EpisodeRecord, EpisodeSummary

KNOWN = "id, mtime_ns, ctime_ns, manifest_size, hot, files"
ENTRY = (
    "id, robot_id, created, instruction, success, label_source, end_reason, sampler, contract_hash, versions, calls,"
    " steps, path, dry_run, targets, human_steps, digest, size, mtime_ns, ctime_ns, manifest_size, note, author,"
    " labelled, label_count"
)
LABEL = ", ".join(LABEL_COLUMNS)


@dataclass(frozen=True)
class Known:
    """What the index knows of the files of an episode."""

    id: str
    mtime_ns: int
    ctime_ns: int
    manifest_size: int
    hot: int
    """its manifest was read within the same tick of the clock as it changed, about"""
    files: str

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Of the manifest, as `stamp_of` makes it."""
        return self.mtime_ns, self.ctime_ns, self.manifest_size

    def sizes(self) -> list[tuple[str, int]]:
        """Return the other files and their bytes; none of them where there are more than a few."""
        return [(name, size) for name, size in json.loads(self.files)] if self.files != "[]" else []


@dataclass(frozen=True)
class EpisodeEntry:
    """An episode as the index shows it: its summary with the label that counts, and what is known beside it."""

    summary: EpisodeSummary
    digest: str
    """SHA-256 of its manifest"""
    size: int
    """bytes of its files"""
    stamp: tuple[int, int, int]
    note: str
    """of the newest label"""
    author: str
    labelled: str
    """ISO 8601, UTC: when the newest label was given; empty: with the episode, or never"""
    label_count: int
    """lines of the log"""

    @property
    def cursor(self) -> tuple[str, str]:
        """Where it stands in a list."""
        return self.summary.created, self.summary.id

    @property
    def etag(self) -> str:
        """Changes with each label, and with the files."""
        return f"{self.digest[:16]}-{self.label_count}"


def entry(row: Sequence[Any]) -> EpisodeEntry:
    """Read a row of the columns `ENTRY`."""
    success = None if row[4] is None else bool(row[4])
    summary = EpisodeSummary(
        row[0], row[1], row[2], row[3], success, row[5], row[6], row[7], row[8], tuple(json.loads(row[9])),
        row[10], row[11], row[12], bool(row[13]), row[14], row[15],
    )  # fmt: skip
    return EpisodeEntry(summary, row[16], row[17], (row[18], row[19], row[20]), *row[21:25])


def entry_of(record: EpisodeRecord, label: Sequence[Any] | None) -> EpisodeEntry:
    """Make the entry of a record, and of the newest label where there is one: a row of the columns `LABEL`."""
    said = record.summary
    if label is None:
        return EpisodeEntry(said, record.digest, record.size, record.stamp, "", "", "", 0)
    success, source, note, author, labelled, count = label
    said = replace(said, success=None if success is None else bool(success), label_source=source)
    return EpisodeEntry(said, record.digest, record.size, record.stamp, note, author, labelled, count)


def put(connection: sqlite3.Connection, record: EpisodeRecord, hot: bool) -> None:
    """Add an episode, or replace it, with the newest label that the index knows of it."""
    said = record.summary
    success = None if said.success is None else int(said.success)
    values = (
        said.id, said.robot_id, said.created, _seconds(said.created), said.instruction, success, said.label_source,
        said.end_reason, said.sampler, said.contract_hash, json.dumps(said.policy_versions), said.calls, said.steps,
        said.path, int(said.dry_run), said.targets, said.human_steps, record.digest, record.size, *record.stamp,
        json.dumps(record.files), int(hot), success, said.label_source, "", "", "", 0,
    )  # fmt: skip
    marks = ", ".join("?" * len(COLUMNS))
    connection.execute(f"INSERT OR REPLACE INTO episodes ({', '.join(COLUMNS)}) VALUES ({marks})", values)
    label(connection, said.id)


def label(connection: sqlite3.Connection, episode_id: str) -> None:
    """Give the row of an episode, where there is one, the label that counts, and its check."""
    connection.execute(
        f"UPDATE episodes SET ({LABEL}) = (SELECT {LABEL} FROM labels WHERE labels.id = episodes.id)"
        " WHERE id = ? AND id IN (SELECT id FROM labels)",
        (episode_id,),
    )
    connection.execute(f"UPDATE episodes SET crc = {crc_of(COLUMNS)} WHERE id = ?", (episode_id,))


def put_label(connection: sqlite3.Connection, episode_id: str, values: Sequence[Any]) -> None:
    """Keep the newest label of an episode: success, source, note, author, when. One more line of the log."""
    connection.execute(
        f"INSERT INTO labels ({', '.join(LABELS)}) VALUES (?, ?, ?, ?, ?, ?, 1) ON CONFLICT (id) DO UPDATE SET"
        " success = excluded.success, label_source = excluded.label_source, note = excluded.note,"
        " author = excluded.author, labelled = excluded.labelled, label_count = label_count + 1",
        (episode_id, *values),
    )
    connection.execute(f"UPDATE labels SET crc = {crc_of(LABELS)} WHERE id = ?", (episode_id,))


def forget_labels(connection: sqlite3.Connection) -> None:
    """Let all episodes have the labels that they were published with."""
    connection.execute("DELETE FROM labels")
    connection.execute(
        f"UPDATE episodes SET ({LABEL}) = (published, published_source, '', '', '', 0) WHERE label_count > 0"
    )
    connection.execute(f"UPDATE episodes SET crc = {crc_of(COLUMNS)}")


def drop(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    """Remove these."""
    connection.executemany("DELETE FROM episodes WHERE id = ?", [(each,) for each in ids])


def _seconds(created: str) -> float | None:
    """Return the time since 1970; None for a text that is none, which no time limit keeps."""
    try:
        return parse_time(created).timestamp()
    except (ValueError, OverflowError):
        return None
