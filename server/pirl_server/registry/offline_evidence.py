"""What held-out robot episodes say of a version against the one that it was learnt from: a gate without a simulator.

root/offline/VERSION.json, one per version; the last measurement replaces the one before.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pirl_server.atomic_files import check_name, read_json, write_json

SMALLEST_ERROR = 1e-6
"""of the base: below it a ratio means nothing"""


@dataclass(frozen=True)
class ActionError:
    """Distance of drawn chunks from what was executed, of both versions on the same windows with the same noise."""

    base: tuple[float, ...]
    """of each episode"""
    result: tuple[float, ...]
    """of the same episodes"""
    unit: str
    max_ratio: float
    """what the job allowed"""

    @property
    def means(self) -> tuple[float, float]:
        """Of base and result."""
        return sum(self.base) / len(self.base), sum(self.result) / len(self.result)

    @property
    def ratio(self) -> float:
        """Mean error of the result over the base's: above 1 it is further from what was executed."""
        base, result = self.means
        return result / max(base, SMALLEST_ERROR)

    def __str__(self) -> str:
        base, result = self.means
        larger = sum(after > before for before, after in zip(self.base, self.result))
        return (
            f"held-out action error {result:.3g} against {base:.3g} of the base ({self.unit}): {self.ratio:.2f} times,"
            f" the limit is {self.max_ratio:g}; larger in {larger} of {len(self.base)} episodes"
        )


@dataclass(frozen=True)
class GainBound:
    """Change of the success rate by the decisions of held-out exploring episodes, to first order."""

    mean: float
    lower: float
    """one-sided 95 % bound"""
    episodes: int
    max_loss: float
    """what the job allowed"""

    def __str__(self) -> str:
        return (
            f"offline change of the success rate {self.mean:+.3f}, at least {self.lower:+.3f} with 95 % by"
            f" {self.episodes} held-out episodes, the limit is {-self.max_loss:+.3f}"
        )


@dataclass(frozen=True)
class OfflineEvidence:
    """All that was measured; None: there were too few episodes for it."""

    version: str
    base: str
    created: str
    job: str
    held_out: int
    """episodes that were not learnt"""
    action_error: ActionError | None = None
    gain: GainBound | None = None

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the version may not drive a robot; none: nothing that was measured speaks against it."""
        found = []
        if self.action_error is not None and not self.action_error.ratio <= self.action_error.max_ratio:
            found.append(f"{self.version}: {self.action_error}")
        if self.gain is not None and not self.gain.lower >= -self.gain.max_loss:
            found.append(f"{self.version}: {self.gain}")
        return tuple(found)

    def __str__(self) -> str:
        measured = [str(each) for each in (self.action_error, self.gain) if each is not None]
        return "; ".join(measured) or f"nothing could be measured on {self.held_out} held-out episodes"


class OfflineEvidences:
    """Those below `root/offline`."""

    def __init__(self, root: Path) -> None:
        self._root = root / "offline"
        self._root.mkdir(parents=True, exist_ok=True)

    def put(self, evidence: OfflineEvidence) -> None:
        """Store what was measured. Raises OSError."""
        write_json(self._path(evidence.version), asdict(evidence))

    def of(self, version: str) -> OfflineEvidence | None:
        """Return what was measured of a version; None: nothing. Raises ValueError that names a file it can't read."""
        path = self._path(version)
        if not path.exists():
            return None
        raw = read_json(path)
        try:
            return _EVIDENCE.validate_python(raw)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "it"
            raise ValueError(f"'{path}' can't be read: {where}: {fault['msg']}") from None

    def _path(self, version: str) -> Path:
        return self._root / f"{check_name('version', version)}.json"


_EVIDENCE = TypeAdapter(OfflineEvidence)
