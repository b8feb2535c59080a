"""Query parameters of lists of episodes: the fields of a selection, under their REST names."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated

from fastapi import Depends, Query

from pirl_server.api.problems import ProblemError, invalid
from pirl_server.config.episodes import EpisodeSelection, LabelState, Mode, ProposalFilter, Source
from pirl_server.config.fields import Loc, parse

PARAMETERS = {
    "robots": "robot", "instructions": "instruction", "versions": "version", "label_sources": "label_source",
}  # fmt: skip
"""field of a selection -> its REST name, where that differs: there each may be repeated"""
Many = list[str] | None


def selection(
    robot: Annotated[Many, Query(description="only of these robots; may be repeated")] = None,
    instruction: Annotated[Many, Query(description="only with these instructions; may be repeated")] = None,
    version: Annotated[
        Many, Query(description="only episodes whose chunks are all of these policy versions; may be repeated")
    ] = None,
    success: Annotated[bool | None, Query(description="only with this label")] = None,
    label: Annotated[LabelState, Query(description="only episodes that ended so; the same as `success`, and more")] = (
        "any"
    ),
    label_source: Annotated[Many, Query(description="only with a label from here; may be repeated")] = None,
    proposal: Annotated[
        ProposalFilter,
        Query(description="what a success model proposed and how that was decided; success, failure: still open"),
    ] = "any",
    mode: Annotated[Mode, Query(description="explore: some chunks left a density to learn from; greedy: none")] = "any",
    source: Annotated[
        Source, Query(description="policy: no human drove; human: one did. Leaves out what was not counted")
    ] = "any",
    max_age_days: Annotated[float | None, Query(description="published so many days ago at most")] = None,
    since: Annotated[str | None, Query(description="published at this time or later, ISO 8601")] = None,
    until: Annotated[str | None, Query(description="published before this time, ISO 8601")] = None,
    contract_hash: Annotated[str | None, Query(description="only of this contract of robot and policy")] = None,
    text: Annotated[
        str | None, Query(description="words in the instruction or the label's note; ASCII letters in either case")
    ] = None,
) -> EpisodeSelection:
    """Make the selection. Raises ProblemError for a value that it does not take."""
    if success is not None:
        same: LabelState = "success" if success else "failure"
        if label not in ("any", same):
            raise invalid("label", f"'{label}' contradicts success={success}: give one of them")
        label = same
    values = {
        "robots": robot or (), "instructions": instruction or (), "versions": version or (), "label": label,
        "label_sources": label_source or (), "proposal": proposal, "mode": mode, "source": source,
        "max_age_days": max_age_days, "since": since, "until": until, "contract_hash": contract_hash, "text": text,
    }  # fmt: skip
    try:
        return parse(EpisodeSelection, values, _named)
    except ValueError as error:
        raise ProblemError(422, "invalid-request", str(error)) from None


SelectionDep = Annotated[EpisodeSelection, Depends(selection)]


def cursor_of(place: tuple[str, str]) -> str:
    """Encode where a page ended. Opaque to clients."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def place_of(cursor: str) -> tuple[str, str]:
    """Decode `cursor_of`. Raises ProblemError for another text."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        created, episode_id = json.loads(raw)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise invalid("cursor", "is none of a list of episodes: send `next_cursor` as it came") from None
    if not (isinstance(created, str) and isinstance(episode_id, str)):
        raise invalid("cursor", "is none of a list of episodes: send `next_cursor` as it came")
    return created, episode_id


def _named(loc: Loc) -> str:
    return PARAMETERS.get(str(loc[0]), str(loc[0])) if loc else ""
