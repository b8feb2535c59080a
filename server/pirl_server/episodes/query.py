"""A selection of episodes as SQL over the index: one condition for each field, with the reason that it leaves out by.

Nothing here opens an episode. What an earlier version did not count of an episode is NULL: a list leaves it out, a job
opens it to know.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pirl_server.config.episodes import EpisodeSelection, LabelState, parse_time

DRY_RUN, NEW_INSTRUCTION = "dry runs", "with an instruction that is new to the policy"
NO_TARGET, OTHER_SOURCE, OTHER_CONTRACT = "without a step to learn from", "of another source", "of another contract"
Values = tuple[str | float, ...]
NO_SUCCESS = "not labelled a success"
NO_PROPOSAL = "without such a proposal"
_INSTRUCTIONS = (
    "WITH RECURSIVE each(text) AS (SELECT min(instruction) FROM episodes UNION ALL"
    " SELECT (SELECT min(instruction) FROM episodes WHERE instruction > text) FROM each WHERE text IS NOT NULL)"
    " SELECT text FROM each"
)
"""the different ones, found by the index: there are few, of many episodes"""
_LABELS: dict[LabelState, tuple[str, str]] = {
    "labelled": ("without a label", "success IS NOT NULL"),
    "success": (NO_SUCCESS, "success IS 1"),
    "failure": ("not labelled a failure", "success IS 0"),
    "unlabelled": ("labelled", "success IS NULL"),
}


@dataclass(frozen=True)
class Condition:
    """True for the episodes that are kept."""

    reason: str
    """why the others are left out"""
    sql: str
    values: Values = ()


@dataclass(frozen=True)
class Learning:
    """What a job adds to a selection."""

    contract_hash: str
    instructions: tuple[str, ...] | None
    """that may be learnt; None: any"""


def conditions(
    selection: EpisodeSelection, now: datetime, learning: Learning | None = None, proposed: Sequence[str] = ()
) -> list[Condition]:
    """Return them in the order in which reasons are counted: an episode is left out by the first that is false.

    `proposed` are the ids that the selection's `proposal` means, where it is not `any`.
    """
    found: list[Condition | None] = [
        _contract(selection.contract_hash),
        _contract(learning.contract_hash) if learning else None,
        _among("of another robot", "robot_id", selection.robots),
        _among("with another instruction", "instruction", selection.instructions),
        _learnable(learning),
        _versions(selection.versions),
        *_outcome(selection),
        _proposal(selection, proposed),
        *_age(selection, now),
        _text(selection.text),
    ]
    if learning:
        found += [Condition(DRY_RUN, "NOT dry_run"), Condition(NO_TARGET, "(targets IS NULL OR targets > 0)")]
    found.append(_source(selection.source, unknown=learning is not None))
    return [each for each in found if each is not None]


def where(found: Sequence[Condition]) -> tuple[str, Values]:
    """Return one SQL condition that holds where all do, and its values."""
    sql = " AND ".join(each.sql for each in found) or "1"
    return sql, tuple(value for each in found for value in each.values)


def reason(found: Sequence[Condition]) -> tuple[str, Values]:
    """Return an SQL expression for why an episode is left out, empty when it is not, and its values."""
    if not found:
        return "''", ()
    cases = " ".join(f"WHEN ({each.sql}) IS NOT 1 THEN ?" for each in found)
    values = [value for each in found for value in (*each.values, each.reason)]
    return f"CASE {cases} ELSE '' END", tuple(values)


def _contract(contract_hash: str | None) -> Condition | None:
    return _among(OTHER_CONTRACT, "contract_hash", () if contract_hash is None else (contract_hash,))


def _among(reason: str, column: str, allowed: tuple[str, ...]) -> Condition | None:
    if not allowed:
        return None
    return Condition(reason, f"{column} IN ({', '.join('?' * len(allowed))})", allowed)


def _learnable(learning: Learning | None) -> Condition | None:
    if learning is None or learning.instructions is None:
        return None
    return _among(NEW_INSTRUCTION, "instruction", learning.instructions) or Condition(NEW_INSTRUCTION, "0")


def _versions(allowed: tuple[str, ...]) -> Condition | None:
    """Most episodes have one version: those are found by the index, the others looked at one by one."""
    if not allowed:
        return None
    marks = ", ".join("?" * len(allowed))
    single = tuple(json.dumps([version]) for version in allowed)
    several = f"NOT EXISTS (SELECT 1 FROM json_each(versions) WHERE value NOT IN ({marks}))"
    sql = f"(versions IN ({marks}) OR (json_array_length(versions) != 1 AND {several}))"
    return Condition("of another version", sql, (*single, *allowed))


def _outcome(selection: EpisodeSelection) -> list[Condition | None]:
    mode = {"explore": "sampler != 'ode'", "greedy": "sampler = 'ode'"}.get(selection.mode)
    label = _LABELS.get(selection.label)
    return [
        Condition("of another mode", mode) if mode else None,
        Condition(*label) if label else None,
        _among("with another label source", "label_source", selection.label_sources),
    ]


def _proposal(selection: EpisodeSelection, proposed: Sequence[str]) -> Condition | None:
    """An open proposal of an episode that was labelled since is open no longer."""
    if selection.proposal == "any":
        return None
    sql = "id IN (SELECT value FROM json_each(?))"
    sql += "" if selection.proposal in ("accepted", "rejected") else " AND success IS NULL"
    return Condition(NO_PROPOSAL, sql, (json.dumps(proposed),))


def _age(selection: EpisodeSelection, now: datetime) -> list[Condition | None]:
    days = selection.max_age_days
    oldest = None if days is None else now.timestamp() - 86_400.0 * days
    return [
        None if oldest is None else Condition("older than max_age_days", "seconds >= ?", (oldest,)),
        _time("before since", "seconds >= ?", selection.since),
        _time("not before until", "seconds < ?", selection.until),
    ]


def _time(reason: str, sql: str, limit: str | None) -> Condition | None:
    return None if limit is None else Condition(reason, sql, (parse_time(limit).timestamp(),))


def _text(words: str | None) -> Condition | None:
    if words is None:
        return None
    sql = f"(instruction IN ({_INSTRUCTIONS} WHERE instr(lower(text), lower(?)))"
    sql += " OR id IN (SELECT id FROM labels WHERE instr(lower(note), lower(?))))"
    return Condition("without the text", sql, (words, words))


def _source(source: str, unknown: bool) -> Condition | None:
    if source == "any":
        return None
    known = f"(human_steps > 0) = {int(source == 'human')}"
    return Condition(OTHER_SOURCE, f"(human_steps IS NULL OR {known})" if unknown else f"({known})")
