"""Aliases on disk: the current version of each, and its previous ones (the stack that a rollback pops).

root/aliases.json       replaced in one step, after the change is in the audit log
root/aliases.copy.json  the same content: read when aliases.json is damaged or lost
root/audit.jsonl        replayed when both are damaged

What serves robots is never guessed: when none of the three can be read, reading raises.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on only

from pirl_server.atomic_files import check_name, quarantine, read_json, replacing, write_json

_LOG = logging.getLogger(__name__)
ROLLED_BACK, DROPPED = "rolled back", "dropped"
"""events of the audit log that do not point an alias at a version"""


class Entry(TypedDict):
    """What one alias means, and meant before, oldest first."""

    version: str
    previous: list[str]


_ALIASES = TypeAdapter(dict[str, Entry])


def pointed(entry: Entry | None, version: str) -> Entry:
    """Return the entry after it was pointed at `version`."""
    return Entry(version=version, previous=[*entry["previous"], entry["version"]] if entry else [])


def stepped_back(entry: Entry) -> Entry:
    """Return the entry after a rollback."""
    return Entry(version=entry["previous"][-1], previous=entry["previous"][:-1])


class Aliases:
    """The aliases below `root`. Writers hold the registry's lock."""

    def __init__(self, root: Path, audit: Path) -> None:
        self.path, self._copy, self._audit = root / "aliases.json", root / "aliases.copy.json", audit
        self.damage = ""
        """why they were not read from aliases.json, and from what instead; empty: they were"""

    def read(self) -> dict[str, Entry]:
        """Return all. Raises ValueError that names the file and the fix when no source of them can be read."""
        if not self.path.exists() and not self._copy.exists():
            return {}
        try:
            return _read(self.path)
        except (OSError, ValueError) as error:
            return self._recover(error)

    @contextmanager
    def replacing(self, aliases: Mapping[str, Entry]) -> Iterator[None]:
        """Replace both files when the body, which writes the audit log, has ended well; else nothing changes."""
        with replacing(self.path, aliases), replacing(self._copy, aliases):  # the copy first: never the older one
            yield

    def repair(self, folder: Path) -> None:
        """Move damaged files into `folder` and write what was read instead. Raises as `read` does."""
        aliases = self.read()
        try:
            self._put_away(folder)
            for path in (self._copy, self.path):
                if aliases and (not path.exists() or _read(path) != aliases):
                    write_json(path, aliases)
        except OSError as error:
            _LOG.error("the aliases below '%s' can't be backed up: %s", self.path.parent, error)

    def forget(self, folder: Path, reason: str) -> None:
        """Move all that can't be read into `folder`: there are no aliases after this. Raises OSError."""
        self.damage = reason
        self._put_away(folder)

    def _put_away(self, folder: Path) -> None:
        for path in (self.path, self._copy):
            try:
                _read(path)
            except FileNotFoundError:
                continue
            except ValueError as error:
                _LOG.error("%s; it was moved to '%s'", error, quarantine(path, folder, str(error)))

    def _recover(self, error: Exception) -> dict[str, Entry]:
        for source, read in ((self._copy, _read), (self._audit, replay)):
            try:
                found = read(source)
            except (OSError, ValueError):
                continue
            damage = f"{error}; '{source}' was used instead: {_meant(found)}"
            if damage != self.damage:
                _LOG.error("%s", damage)
            self.damage = damage
            return found
        raise ValueError(
            f"{error}, and neither can its copy '{self._copy}' nor the audit log: put it right"
            ' ({"production": {"version": VERSION, "previous": []}}), or start with a checkpoint: pirl serve CHECKPOINT'
        ) from None


def _read(path: Path) -> dict[str, Entry]:
    """Raises ValueError that names the file, OSError."""
    raw = read_json(path)
    try:
        aliases = _ALIASES.validate_python(raw)
        for alias, entry in aliases.items():
            for name in (alias, entry["version"], *entry["previous"]):
                check_name("name", name)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise ValueError(f"'{path}' can't be read: {where}: {fault['msg']}") from None
    except ValueError as error:
        raise ValueError(f"'{path}' can't be read: {error}") from None
    return aliases


def before(entry: Entry | None) -> dict[str, str]:
    """Return what a line of the audit log says of the alias before its change: the replay recognises by it a change
    that never took effect, because its process was killed after the line.
    """  # fmt: skip
    return {"before": entry["version"] if entry else "", "depth": str(len(entry["previous"]) if entry else 0)}


def replay(audit: Path) -> dict[str, Entry]:
    """Return what the whole audit log adds up to. Raises ValueError when a line is damaged or nothing is there."""
    aliases: dict[str, Entry] = {}
    unconfirmed: dict[str, Entry | None] = {}
    for line in filter(None, audit.read_bytes().split(b"\n")):
        try:
            said = json.loads(line)
            if (alias := said.get("alias")) is None:
                continue
            if alias in unconfirmed and "before" in said and before(aliases.get(alias)).items() - said.items():
                _restore(aliases, alias, unconfirmed[alias])
            unconfirmed[alias] = aliases.get(alias)
            if said["event"] == DROPPED:
                del aliases[alias]
            elif said["event"] == ROLLED_BACK:
                aliases[alias] = stepped_back(aliases[alias])
            else:
                aliases[alias] = pointed(aliases.get(alias), check_name("version", said["version"]))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"'{audit}' does not define the aliases: {error!r}") from None
    if not aliases:
        raise ValueError(f"'{audit}' names no alias")
    return aliases


def _restore(aliases: dict[str, Entry], alias: str, entry: Entry | None) -> None:
    """Take the last change of an alias back."""
    if entry is None:
        del aliases[alias]
    else:
        aliases[alias] = entry


def _meant(aliases: Mapping[str, Entry]) -> str:
    return ", ".join(f"{alias} is {entry['version']}" for alias, entry in sorted(aliases.items())) or "no alias"
