"""Which initial states the promotion gate has judged a candidate on, and how often.

root/gate/VERSION.json, one per candidate. The same evidence judged again is not another use: a request is repeated at
will. Growing or changed evidence is one: each further look lets a worse version through by chance.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import check_name, locked, read_json, write_json
from pirl_server.registry.evaluation import Evaluation, States, states_overlap

KEPT = 100
"""uses of one candidate; the oldest are dropped"""


@dataclass(frozen=True)
class GateUse:
    """One list that the gate judged a candidate on."""

    task: str
    list_hash: str
    states: States
    digest: str
    """of all evidence that was judged together"""

    def overlaps(self, evaluation: Evaluation) -> bool:
        """Whether it judged one of these states."""
        return states_overlap(
            self.task, self.list_hash, self.states, evaluation.task, evaluation.list_hash, evaluation.states
        )


def digest(evaluations: Sequence[Evaluation]) -> str:
    """Return the identity of what was judged: versions, lists and outcomes."""
    judged = sorted([each.version, each.task, each.list_hash, list(each.outcomes)] for each in evaluations)
    return hashlib.sha256(json.dumps(judged).encode()).hexdigest()[:16]


class GateUses:
    """Those below `root/gate`."""

    def __init__(self, root: Path) -> None:
        self._root = root / "gate"
        self._root.mkdir(parents=True, exist_ok=True)

    def add(self, candidate: str, judged: Sequence[Evaluation], evidence: str) -> None:
        """Remember that the gate judged the candidate on these lists. Raises OSError, ValueError."""
        with locked(self._root / ".lock"):
            known = self.of(candidate)
            new = [GateUse(each.task, each.list_hash, each.states, evidence) for each in judged]
            if fresh := [use for use in new if use not in known]:
                write_json(self._path(candidate), [asdict(use) for use in (*known, *fresh)][-KEPT:])

    def of(self, candidate: str) -> tuple[GateUse, ...]:
        """Return the uses of one candidate. Raises ValueError that names a file it can't read."""
        path = self._path(candidate)
        if not path.exists():
            return ()
        raw = read_json(path)
        try:
            return tuple(_USES.validate_python(raw))
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "it"
            raise ValueError(f"'{path}' can't be read: {where}: {fault['msg']}") from None

    def _path(self, candidate: str) -> Path:
        return self._root / f"{check_name('version', candidate)}.json"


_USES = TypeAdapter(list[GateUse])
