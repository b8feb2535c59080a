"""A process that promotes and rolls back is killed at any moment: what is in production is certain after it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from patience import output_of, until

from pirl_contract import Contract
from pirl_server.atomic_files import read_json
from pirl_server.registry.aliases import Entry, before, replay
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.versions import Registry

KILLS = 5
RACER = """
import sys
from pathlib import Path
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.versions import Registry
registry = Registry(Path(sys.argv[1]))
promoter = Promoter(registry, lambda version: None)
print("begins", flush=True)
while True:
    served = registry.aliases()["production"]
    if registry.previous("production") is None or served == "v1":
        promoter.promote("v2" if served != "v2" else "v3", "racer", "because", force=True)
    else:
        promoter.rollback("racer", "because")
"""


def replayed(audit: Path, lines: int, folder: Path) -> Entry:
    """What the audit log says without its last lines."""
    kept = audit.read_bytes().splitlines(keepends=True)
    (copy := folder / "copy.jsonl").write_bytes(b"".join(kept[: len(kept) - lines]))
    return replay(copy)["production"]


def test_after_any_kill_the_alias_is_what_the_log_says_or_said_one_step_before(
    tmp_path: Path, contract: Contract
) -> None:
    registry, source = Registry(tmp_path / "models"), tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    for version in ("v1", "v2", "v3"):
        registry.add(version, source, contract)
    registry.point("production", "v1", "test", "start")
    rng, seen = random.Random(4), set[str]()
    for _ in range(KILLS):
        lines = len(registry.audit_log.path.read_bytes().splitlines())
        racer = subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path / "models")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        until(lambda before=lines: len(registry.audit_log.path.read_bytes().splitlines()) > before + 2, "it works")
        time.sleep(rng.uniform(0.0, 0.05))
        racer.send_signal(signal.SIGKILL)
        output_of(racer, 20)
        found = Registry(tmp_path / "models")
        found.repair_aliases()
        assert not found.degraded, "no file was torn"
        production = read_json(tmp_path / "models" / "aliases.json")["production"]
        audit = registry.audit_log.path
        assert production in (replayed(audit, 0, tmp_path), replayed(audit, 1, tmp_path))
        assert found.get(production["version"])
        seen.add(production["version"])
        events = [json.loads(line)["event"] for line in audit.read_text().splitlines() if line.endswith("}")]
        assert {"forced", "rolled back"} <= set(events)
    assert len(seen) > 1, "it was killed on both sides of a change"
    Promoter(registry, lambda version: None).promote("v3", "test", "after it all", force=True)
    assert registry.aliases()["production"] == "v3"


def test_lines_of_changes_that_never_took_effect_do_not_mislead_the_replay(tmp_path: Path, contract: Contract) -> None:
    """As two kills in a row leave them, before a change that took effect."""
    registry, source = Registry(tmp_path / "models"), tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    for version in ("v1", "v2", "v3"):
        registry.add(version, source, contract)
    registry.point("production", "v1", "test", "start")
    registry.point("production", "v2", "test", "next")

    def killed(event: str, version: str) -> None:
        entry = read_json(tmp_path / "models" / "aliases.json")["production"]
        registry.audit(event, version, "test", "killed", alias="production", **before(entry))

    changes = [
        lambda: registry.step_back("production", "test", "worse"),
        lambda: registry.point("production", "v3", "test", "better"),
        lambda: registry.point("production", "v2", "test", "again"),
    ]
    for change in changes:
        if registry.previous("production"):
            killed("rolled back", "v1")
        killed("forced", "v3")
        change()
        assert replay(registry.audit_log.path) == read_json(tmp_path / "models" / "aliases.json")


def test_lines_of_an_earlier_revision_are_replayed_as_they_were(tmp_path: Path) -> None:
    said = [("promoted", "v1"), ("promoted", "v2"), ("rolled back", "v1"), ("promoted", "v3")]
    lines = [json.dumps({"event": event, "version": version, "alias": "production"}) for event, version in said]
    (log := tmp_path / "audit.jsonl").write_text("\n".join(lines) + "\n")
    assert replay(log) == {"production": {"version": "v3", "previous": ["v1"]}}
