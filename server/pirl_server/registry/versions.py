"""Immutable model versions and the aliases that point at them.

root/versions/<version>/{the caller's files, lineage.json}   never changed once it is there
root/aliases.json        alias -> the version now, and those before it (the stack that rollback pops)
root/routes.json         see routes.py
root/audit.jsonl         who, when, why; only ever appended
root/evaluations/        see evaluation.py
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pirl_contract import Contract
from pirl_server.disk import check_name, locked, sync, utc_now, write_json
from pirl_server.registry.audit import AuditLog
from pirl_server.registry.evaluation import Evaluations
from pirl_server.registry.routes import Routes, read_routes, write_routes

LINEAGE = "lineage.json"


@dataclass(frozen=True)
class ModelVersion:
    """One checkpoint in the registry."""

    version: str
    """content hash, given by whoever saved the checkpoint"""
    path: Path
    """directory with its files"""
    contract: Contract
    parent: str | None
    """version it was trained from"""
    job: str | None
    """job that made it"""
    created: str


class Registry:
    """Versions, aliases and audit on disk; the server and its job processes share one root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions, self._aliases = root / "versions", root / "aliases.json"
        self._versions.mkdir(parents=True, exist_ok=True)
        self.evaluations = Evaluations(root)
        self.audit_log = AuditLog(root / "audit.jsonl")
        """of the whole server: whoever changes something writes here"""

    def add(
        self, version: str, source: Path, contract: Contract, parent: str | None = None, job: str | None = None
    ) -> ModelVersion:
        """Copy the plain files of the directory `source` in as `version`; one that is there already stays as it is.

        Raises ValueError when `source` is no flat directory of files.
        """
        home = self._versions / check_name("version", version)
        if not home.is_dir():
            lineage = {"parent": parent, "job": job, "created": utc_now(), "contract": contract.to_json()}
            self._copy_in(source, home, lineage)
            self.audit("added", version, actor=job or "cli", reason=f"parent {parent}")
        return self.get(version)

    def get(self, version: str) -> ModelVersion:
        """Return a version. Raises KeyError when there is none of that name."""
        home = self._versions / check_name("version", version)
        if not (home / LINEAGE).is_file():
            raise KeyError(version)
        raw = json.loads((home / LINEAGE).read_text())
        contract = Contract.from_json(raw["contract"])
        return ModelVersion(version, home, contract, raw["parent"], raw["job"], raw["created"])

    def versions(self) -> list[ModelVersion]:
        """Return all versions, newest first."""
        names = [home.name for home in self._versions.iterdir() if not home.name.startswith(".")]
        return sorted(map(self.get, names), key=lambda model: (model.created, model.version), reverse=True)

    def aliases(self) -> dict[str, str]:
        """Return alias -> version."""
        return {alias: entry["version"] for alias, entry in self._read_aliases().items()}

    def resolve(self, name: str) -> ModelVersion:
        """Return the version behind an alias or a version name. Raises KeyError when it is neither."""
        return self.get(self.aliases().get(name, name))

    def previous(self, alias: str) -> str | None:
        """Return the version that a rollback would bring back."""
        history = self._read_aliases().get(alias, {"previous": []})["previous"]
        return str(history[-1]) if history else None

    def point(self, alias: str, version: str, actor: str, reason: str, event: str = "promoted") -> None:
        """Make the alias mean `version` and remember what it meant before."""
        check_name("alias", alias)
        self.get(version)
        with locked(self._root / ".lock"):
            aliases = self._read_aliases()
            entry = aliases.get(alias)
            history = [*entry["previous"], entry["version"]] if entry else []
            write_json(self._aliases, aliases | {alias: {"version": version, "previous": history}})
            self.audit(event, version, actor, reason, alias=alias)

    def step_back(self, alias: str, actor: str, reason: str) -> str:
        """Make the alias mean what it meant before and return that version. Raises ValueError when nothing was."""
        with locked(self._root / ".lock"):
            aliases = self._read_aliases()
            if not aliases.get(alias, {"previous": []})["previous"]:
                raise ValueError(f"alias '{alias}' has no earlier version to go back to")
            *history, version = aliases[alias]["previous"]
            write_json(self._aliases, aliases | {alias: {"version": version, "previous": history}})
            self.audit("rolled back", version, actor, reason, alias=alias)
        return str(version)

    def drop(self, alias: str, actor: str, reason: str) -> str:
        """Let the alias mean nothing and return what it meant. Raises ValueError when that was nothing."""
        with locked(self._root / ".lock"):
            aliases = self._read_aliases()
            if alias not in aliases:
                raise ValueError(f"there is no {alias}")
            version = str(aliases.pop(alias)["version"])
            write_json(self._aliases, aliases)
            self.audit("dropped", version, actor, reason, alias=alias)
        return version

    def routes(self) -> Routes:
        """Return which robots are served otherwise than by production."""
        return read_routes(self._root / "routes.json")

    def decide(self, routes: Routes, version: str, actor: str, reason: str, event: str) -> None:
        """Replace the routes; `version` is the one that the change is about."""
        with locked(self._root / ".lock"):
            write_routes(self._root / "routes.json", routes)
            self.audit(event, version, actor, reason)

    def audit(self, event: str, version: str, actor: str, reason: str, **more: str) -> None:
        """Append one line to the audit log."""
        result = "refused" if event == "refused" else "done"
        self.audit_log.write(event, actor, result, version=version, reason=reason, **more)

    def _read_aliases(self) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self._aliases.read_text())) if self._aliases.exists() else {}

    def _copy_in(self, source: Path, home: Path, lineage: dict[str, str | None]) -> None:
        entries = sorted(source.iterdir()) if source.is_dir() else []
        if not entries or any(entry.is_symlink() or not entry.is_file() for entry in entries):
            raise ValueError(f"{source} must be a directory of plain files (no folders, no links)")
        staged = self._versions / f".{uuid.uuid4().hex}"
        staged.mkdir()
        try:
            for entry in entries:
                sync(Path(shutil.copyfile(entry, staged / entry.name)))
            write_json(staged / LINEAGE, lineage)
            sync(staged)
            os.rename(staged, home)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            if not home.is_dir():  # else another process added the same content first: the same result
                raise
