"""Lists by name, cut into pages where a client asks for it; without `limit` they are whole, as they always were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query

from pirl_server.api.dependencies import MAX_PAGE
from pirl_server.api.problems import not_found
from pirl_server.atomic_files import NAME_PATTERN

AfterName = Annotated[str | None, Query(pattern=NAME_PATTERN, description="`last_id` of the page before")]
OptionalLimit = Annotated[int | None, Query(ge=1, le=MAX_PAGE, description="most entries of a page; default: all")]


@dataclass(frozen=True)
class NamePage:
    """Some of the names of a list."""

    names: Sequence[str]
    more: bool

    @property
    def ids(self) -> dict[str, str | bool | None]:
        """Fields of the page: `first_id`, `last_id`, `has_more`."""
        first, last = (self.names[0], self.names[-1]) if self.names else (None, None)
        return {"first_id": first, "last_id": last, "has_more": self.more}


def page_of(names: Sequence[str], what: str, after: str | None, limit: int | None) -> NamePage:
    """Cut a list. Raises ProblemError where `after` is not in it."""
    try:
        start = 0 if after is None else names.index(after) + 1
    except ValueError:
        raise not_found(what, str(after)) from None
    stop = len(names) if limit is None else start + limit
    return NamePage(names[start:stop], stop < len(names))
