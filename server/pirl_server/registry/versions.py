"""Immutable model versions and the aliases that point at them.

root/versions/<version>/{the caller's files, lineage.json}   never changed once it is there
root/aliases.json        see aliases.py
root/routes.json         see routes.py
root/audit.jsonl         who, when, why; only ever appended
root/evaluations/        see evaluation.py
root/gate/               see gate_uses.py
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from pirl_contract import Contract
from pirl_server.atomic_files import check_name, locked, quarantine, read_json, replacing, sync, utc_now, write_json
from pirl_server.registry.aliases import DROPPED, ROLLED_BACK, Aliases, before, pointed, stepped_back
from pirl_server.registry.audit import NAME as AUDIT
from pirl_server.registry.audit import AuditLog
from pirl_server.registry.evaluation import Evaluations
from pirl_server.registry.gate_uses import GateUses
from pirl_server.registry.offline_evidence import OfflineEvidence, OfflineEvidences
from pirl_server.registry.routing_rules import Routes, read_routes, routes_json

LINEAGE = "lineage.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelVersion:
    """One checkpoint in the registry."""

    version: str
    """content hash, computed when the checkpoint was saved"""
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
        self._root = self.root = root
        self._versions, self._quarantine = root / "versions", root.with_name("quarantine") / root.name
        self._versions.mkdir(parents=True, exist_ok=True)
        self.evaluations, self.offline, self.gate_uses = Evaluations(root), OfflineEvidences(root), GateUses(root)
        self.audit_log = AuditLog(root / AUDIT)
        """of the whole server: every change is logged here"""
        self._aliases = Aliases(root, self.audit_log.path)
        self.damaged: dict[str, str] = {}
        """folders among the versions that `versions` could not read when it was called last, and why"""

    def add(
        self, version: str, source: Path, contract: Contract, parent: str | None = None, job: str | None = None
    ) -> ModelVersion:
        """Copy the plain files of the directory `source` in as `version`; one that is there already stays as it is.

        One that is there and can't be read is moved into quarantine first. Raises ValueError when `source` is no flat
        directory of files.
        """
        home = self._versions / check_name("version", version)
        if self.holds(version):
            try:
                return self.get(version)
            except (KeyError, ValueError) as error:
                self.put_away(version, str(error))
        if not home.is_dir():
            lineage = {"parent": parent, "job": job, "created": utc_now(), "contract": contract.to_json()}
            self._copy_in(source, home, lineage)
            self.audit("added", version, actor=job or "cli", reason=f"parent {parent}")
        return self.get(version)

    def measured(self, evidence: OfflineEvidence) -> None:
        """Keep what held-out episodes say of a version, and write it to the audit log. Raises OSError."""
        self.offline.put(evidence)
        result = "refused" if evidence.refusals else "done"
        self.audit_log.write(
            "measured offline", evidence.job or "cli", result, version=evidence.version, reason=str(evidence)
        )

    def put_away(self, version: str, reason: str) -> None:
        """Move a damaged version into quarantine; aliases that mean it stay. Raises OSError."""
        home = self._versions / check_name("version", version)
        _LOG.error("%s; it was moved to '%s'", reason, quarantine(home, self._quarantine, reason))

    def holds(self, version: str) -> bool:
        """Whether there is a folder of that name, readable or not."""
        return self.path(version).is_dir()

    def path(self, version: str) -> Path:
        """Return the folder of a version, whether it is there and can be read or not."""
        return self._versions / check_name("version", version)

    def get(self, version: str) -> ModelVersion:
        """Return a version. Raises KeyError when there is none of that name, ValueError when it can't be read."""
        home = self._versions / check_name("version", version)
        if not (home / LINEAGE).is_file():
            raise KeyError(version)
        try:
            raw = read_json(home / LINEAGE)
            model = ModelVersion(
                version, home, Contract.from_json(raw["contract"]), raw["parent"], raw["job"], raw["created"]
            )
            _check_texts(model)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"'{home / LINEAGE}' can't be read: {error!r}") from None
        except ValueError as error:
            raise ValueError(f"'{home / LINEAGE}' can't be read: {error}") from None
        return model

    def versions(self) -> list[ModelVersion]:
        """Return all versions that can be read, newest first; the others are named in `damaged`."""
        found: list[ModelVersion] = []
        damaged: dict[str, str] = {}
        for home in self._versions.iterdir():
            if home.name.startswith("."):
                continue
            try:
                found.append(self.get(home.name))
            except KeyError:
                damaged[home.name] = f"'{home}' has no {LINEAGE}: not a model version"
            except (ValueError, OSError) as error:
                damaged[home.name] = str(error)
        self.damaged = damaged
        return sorted(found, key=lambda model: (model.created, model.version), reverse=True)

    @property
    def degraded(self) -> list[str]:
        """What was found damaged, one line each. Never waits for the disk."""
        aliases = [f"models: {self._aliases.damage}"] if self._aliases.damage else []
        return aliases + [f"models: {name} is damaged: {why}" for name, why in sorted(self.damaged.items())]

    def repair_aliases(self) -> None:
        """Put damaged aliases right from their copy or the audit log. Raises ValueError when neither can be read."""
        with locked(self._root / ".lock"):
            self._aliases.repair(self._quarantine)

    def forget_aliases(self, reason: str) -> None:
        """Move aliases that can't be read into quarantine: no alias means anything after this."""
        with locked(self._root / ".lock"):
            self._aliases.forget(self._quarantine, reason)

    def aliases(self) -> dict[str, str]:
        """Return alias -> version. Raises ValueError when they can't be read."""
        return {alias: entry["version"] for alias, entry in self._aliases.read().items()}

    def resolve(self, name: str) -> ModelVersion:
        """Return the version behind an alias or a version name. Raises KeyError when it is neither."""
        return self.get(self.aliases().get(name, name))

    def previous(self, alias: str) -> str | None:
        """Return the version that a rollback would bring back."""
        earlier = self.earlier(alias)
        return earlier[-1] if earlier else None

    def earlier(self, alias: str) -> tuple[str, ...]:
        """Return what an alias meant before, oldest first, without what was rolled back."""
        entry = self._aliases.read().get(alias)
        return tuple(entry["previous"]) if entry else ()

    def state(self, alias: str) -> str:
        """Return a tag of what an alias means and meant before: another one after each change. Raises as `aliases`."""
        entry = self._aliases.read().get(alias)
        return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]

    def point(self, alias: str, version: str, actor: str, reason: str, event: str = "promoted") -> None:
        """Make the alias mean `version` and remember what it meant before; when it raises, nothing has changed."""
        check_name("alias", alias)
        self.get(version)
        with locked(self._root / ".lock"):
            aliases = self._aliases.read()
            with self._aliases.replacing(aliases | {alias: pointed(aliases.get(alias), version)}):
                self.audit(event, version, actor, reason, alias=alias, **before(aliases.get(alias)))

    def step_back(self, alias: str, actor: str, reason: str) -> str:
        """Make the alias mean what it meant before and return that version. Raises ValueError when nothing was."""
        with locked(self._root / ".lock"):
            aliases = self._aliases.read()
            if alias not in aliases or not aliases[alias]["previous"]:
                raise ValueError(f"alias '{alias}' has no earlier version to roll back to")
            entry = stepped_back(aliases[alias])
            with self._aliases.replacing(aliases | {alias: entry}):
                self.audit(ROLLED_BACK, entry["version"], actor, reason, alias=alias, **before(aliases[alias]))
        return entry["version"]

    def drop(self, alias: str, actor: str, reason: str) -> str:
        """Let the alias mean nothing and return what it meant. Raises ValueError when that was nothing."""
        with locked(self._root / ".lock"):
            aliases = self._aliases.read()
            if alias not in aliases:
                raise ValueError(f"alias '{alias}' does not exist")
            entry = aliases.pop(alias)
            version = entry["version"]
            with self._aliases.replacing(aliases):
                self.audit(DROPPED, version, actor, reason, alias=alias, **before(entry))
        return version

    def routes(self) -> Routes:
        """Return which robots are served otherwise than by production."""
        return read_routes(self._root / "routes.json")

    def decide(self, routes: Routes, version: str, actor: str, reason: str, event: str) -> None:
        """Replace the routes; `version` is the one that the change is about."""
        with locked(self._root / ".lock"), replacing(self._root / "routes.json", routes_json(routes)):
            self.audit(event, version, actor, reason)

    def audit(self, event: str, version: str, actor: str, reason: str, **more: str) -> None:
        """Append one line to the audit log."""
        result = "refused" if event == "refused" else "done"
        self.audit_log.write(event, actor, result, version=version, reason=reason, **more)

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


def _check_texts(model: ModelVersion) -> None:
    for name in ("parent", "job", "created"):
        value = getattr(model, name)
        if not isinstance(value, str) and (name == "created" or value is not None):
            raise TypeError(f"{name} is {value!r}")
