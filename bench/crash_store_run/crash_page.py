"""The page of results: one table per part."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import Any

from crash_episodes import below

Rows = dict[str, dict[str, Any]]


def page(rows: Rows, seconds: float) -> str:
    """Return it as Markdown, a line for each paragraph. Parts that were not run are not there."""
    cores = f"{platform.machine()} with {os.cpu_count()} cores that others used too"
    machine = f"{cores} (load average {os.getloadavg()[1]:.0f}), Python {platform.python_version()}"
    command = "`python bench/crash_store.py --write docs/results/episodes-crash.md`"
    parts = [
        "# What crashes leave of stored episodes",
        f"{time.strftime('%Y-%m-%d')}, {machine}. Reproduce: {command} ({seconds / 60:.0f} minutes here).",
        "Every episode has two cameras, five steps for each policy call, all columns and a last observation; half get a"
        " label. *Lost*: acknowledged, and a fresh store does not list it, or shows another label. *Corrupt*: listed,"
        " and not what was written, by SHA-256 of its files and of what is read; or there, and neither listed nor named"
        " as damaged. A zero is not never: each has the upper end of its 95 % interval.",
    ]
    for part in (_kills, _power, _damage, _disk, _server):
        parts += part(rows)
    return "\n\n".join(parts) + "\n"


def zero(count: int, tries: int) -> str:
    """A count, with the bound when it is none."""
    return f"{count}" if count else f"0 (below {100 * below(tries):.2g} %)"


def _table(head: str, lines: list[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *lines])


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _kills(rows: Rows) -> Iterator[str]:
    own = {name.removeprefix("kills, "): row for name, row in rows.items() if "kills" in row}
    if not own:
        return
    yield "## kill -9"
    yield (
        "Ten processes write to one store as fast as they can, and say in a pipe what `write` and `label` have returned"
        " for. One after another is killed and started again, on average once in half the time that a write takes"
        " alone; after every fifty kills, the last ten at once, a fresh store sweeps, lists, and reads everything."
    )
    yield _table(
        "| episodes of | kills | acknowledged | labels | in a write | swept | lost | corrupt | longest start, s |",
        [
            _line(
                name, row["kills"], row["acknowledged"], row["labels"], _middle(row), row["swept"],
                zero(row["lost"], row["kills"]), zero(row["corrupt"], row["kills"]), f"{row['recovery_s']:.1f}",
            )
            for name, row in own.items()
        ],
    )  # fmt: skip
    every = [row for name, row in own.items() if not name.startswith("control")]
    kinds = sorted({kind for row in every for kind in row["caught"]})
    caught = ", ".join(f"{kind} {sum(row['caught'].get(kind, 0) for row in every)}" for kind in kinds)
    tries, faults = sum(row["kills"] for row in every), sum(row["lost"] + row["corrupt"] for row in every)
    yield (
        f"Together {tries} kills, {zero(faults, tries)} lost or corrupt. They left: {caught}. What is in the middle of"
        " a write lies in `staging`, which the next start empties; a start is the sweep and the first list, which reads"
        " every manifest. Bounds are per kill."
    )


def _middle(row: dict[str, Any]) -> int:
    return sum(count for kind, count in row["caught"].items() if not kind.startswith("published"))


def _power(rows: Rows) -> Iterator[str]:
    own = {name: row for name, row in rows.items() if "cuts" in row}
    if not own:
        return
    yield "## Power cuts"
    yield (
        f"One run that makes a store, writes and labels is recorded ({next(iter(own.values()))['events']} events), and"
        " cut at a random one. The disk afterwards has what POSIX promises: a file's bytes, and a folder's entries, as"
        " they were when each was forced (`fsync`). Everything else is there with a chance of 0, ½ or 1: entries made,"
        " renamed and removed, and of a file nothing, a part, zeros or all. An index is what it was at the last"
        " acknowledgement, whole, torn or missing. The recording is compared with the real folder."
    )
    yield _table(
        "| | cuts | acknowledged | labels | visible | lost | corrupt |",
        [
            _line(
                name, row["cuts"], row["acknowledged"], row["labels"], row["visible"], zero(row["lost"], row["cuts"]),
                zero(row["corrupt"], row["cuts"]),
            )
            for name, row in own.items()
        ],
    )  # fmt: skip
    yield (
        "Before, all of a new store could be missing after a cut: the folders that it is made of were not forced. They"
        " are now, as the server's root is. This is a model: no power was cut, one process writes, and a disk that lies"
        " about what it has written is not in it."
    )


def _damage(rows: Rows) -> Iterator[str]:
    own = {name.removeprefix("damage, "): row for name, row in rows.items() if name.startswith("damage, ")}
    if not own:
        return
    yield "## Flipped bits and cut files"
    yield (
        "Three in four are one flipped bit, one in four cuts the file, at a random byte of its kind. Then a fresh store"
        " lists, and opens the episode whole. *Unread*: what is returned equals what was written; *found by verify*: of"
        " those, how many `pirl episodes verify` finds. The other episode was read each time."
    )
    yield _table(
        "| | damages | found | of those in quarantine | unread | found by verify | returned changed |",
        [
            _line(
                kind, row["tries"], row["found"], row["put_away"], row["unread"], row["verified"],
                zero(row["missed"], row["tries"]),
            )
            for kind, row in own.items()
        ],
    )  # fmt: skip
    tries, missed = sum(row["tries"] for row in own.values()), sum(row["missed"] for row in own.values())
    yield (
        f"Together {tries} damages, {zero(missed, tries)} returned changed. An archive that was cut is named and left,"
        " since it may be a copy on its way; a damaged label is named and counts for nothing, the one before it counts."
        " What nothing reads is metadata that the archive holds twice, and fields of ZIP headers such as times and"
        " modes. Before, a dataset could be returned with another author, time or selection, which its hash leaves out:"
        " 5 of 143; it has a check of everything now."
        + " A damaged index is made again from the manifests."
        * ("index" in own)
    )


def _disk(rows: Rows) -> Iterator[str]:
    own = {name: row for name, row in rows.items() if "silent" in row}
    if not own:
        return
    yield "## A disk that rejects"
    yield (
        "An episode is written and labelled while the disk rejects, and again when it no longer does. *In each call*:"
        " the first, second, third ... `mkdir`, `rename`, `fsync` or write to a file fails. Each time the store shows"
        " whole episodes only, and the second attempt succeeds; *faults* are the times when it did not."
    )
    yield _table(
        "| | tries | rejected with an error | nothing to reject | faults | the error says |",
        [
            _line(
                name, row["tries"], row["refused"], row["silent"], len(row["faults"]),
                row["skipped"] or f"`{row['words'].partition(': ')[0]}`",
            )
            for name, row in own.items()
        ],
    )  # fmt: skip
    yield "The call that may fail unnoticed makes a robot's folder where there is one."


def _server(rows: Rows) -> Iterator[str]:
    if (row := rows.get("server")) is None:
        return
    yield "## On a real server"
    yield (
        f"`pirl serve`, whose files may not grow beyond 4 KiB for a while. A robot ends its episode {row['tries']}"
        f" times: {row['refused']} are rejected, {row['visible meanwhile']} episodes become visible, and"
        f" {row['chunks meanwhile']} chunks asked for in between are answered. Then the limit goes, and the same call"
        f" publishes {row['published in the end']} episode with its {row['steps kept']} step. The robot gets:"
        f" `{row['words']}`."
    )
