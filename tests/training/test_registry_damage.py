"""What is in production when its files are damaged or the disk is full: never something else without a word."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from toy_arm import CONTRACT, save_toy

from pirl_server import atomic_files
from pirl_server.app import adopt
from pirl_server.paths import MODELS
from pirl_server.policy.checkpoint import checkpoint_version
from pirl_server.registry.audit import AuditLog
from pirl_server.registry.evaluation import Evaluation
from pirl_server.registry.promotion import PRODUCTION, Promoter
from pirl_server.registry.promotion_gate import check_gate
from pirl_server.registry.versions import Registry

DAMAGES = ["", "{", "[]", '{"production": "v1"}', '{"production": {"version": 1, "previous": []}}', "\ufffd\x00",
           '{"production": {"version": "../v1", "previous": []}}', "[" * 100_000]  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_toy(tmp_path / "base")


@pytest.fixture
def registry(tmp_path: Path, base: Path) -> Registry:
    """base and other were in production, base is again; candidate was dropped; shadow is other."""
    made = Registry(tmp_path / MODELS)
    adopt(made, base)
    made.add("other", save_toy(tmp_path / "other", seed=1), CONTRACT)
    for alias in (PRODUCTION, "candidate", "shadow"):
        made.point(alias, "other", "test", "")
    made.point(PRODUCTION, checkpoint_version(base), "test", "")
    made.point(PRODUCTION, "other", "test", "")
    made.step_back(PRODUCTION, "test", "")
    made.drop("candidate", "test", "")
    return made


def state(registry: Registry) -> tuple[dict[str, str], str | None]:
    return registry.aliases(), registry.previous(PRODUCTION)


def files(tmp_path: Path) -> list[Path]:
    return [tmp_path / MODELS / name for name in ("aliases.json", "aliases.copy.json", "audit.jsonl")]


@pytest.mark.parametrize("text", DAMAGES)
@pytest.mark.parametrize("damaged", [1, 2], ids=["the file", "the copy too"])
def test_damaged_aliases_are_read_from_what_is_left(
    registry: Registry, tmp_path: Path, base: Path, text: str, damaged: int
) -> None:
    before = state(registry)
    assert before == ({PRODUCTION: checkpoint_version(base), "shadow": "other"}, "other")
    for path in files(tmp_path)[:damaged]:
        path.write_text(text)
    again = Registry(tmp_path / MODELS)
    assert state(again) == before
    assert "aliases.json" in again.degraded[0]
    assert adopt(again, base) == checkpoint_version(base)
    assert any("aliases.json" in line for line in again.degraded), "said for as long as this server runs"
    healed = Registry(tmp_path / MODELS)
    assert (state(healed), healed.degraded) == (before, [])
    assert len(list((tmp_path / "quarantine" / MODELS).glob("aliases*.json"))) == damaged
    assert len(list((tmp_path / "quarantine" / MODELS).glob("*.reason.txt"))) == damaged


def test_lost_aliases_are_read_from_their_copy(registry: Registry, tmp_path: Path) -> None:
    before = state(registry)
    files(tmp_path)[0].unlink()
    assert state(Registry(tmp_path / MODELS)) == before


def test_aliases_of_which_nothing_is_left_stop_the_start_unless_a_checkpoint_is_given(
    registry: Registry, tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in files(tmp_path)[:2]:
        path.write_text("{")
    with files(tmp_path)[2].open("a") as audit:
        audit.write('{"torn')
    again = Registry(tmp_path / MODELS)
    with pytest.raises(ValueError, match=r"models/aliases\.json.*pirl serve CHECKPOINT"):
        adopt(again, None)
    adopt(again, tmp_path / "other")
    assert again.aliases() == {PRODUCTION: checkpoint_version(tmp_path / "other")}
    assert "no record of the production version" in caplog.text
    assert any("aliases.json" in line for line in again.degraded)


def test_the_copy_of_a_root_that_has_none_yet_is_made_at_the_start(
    registry: Registry, tmp_path: Path, base: Path
) -> None:
    files(tmp_path)[1].unlink()
    adopt(registry, base)
    assert files(tmp_path)[1].read_bytes() == files(tmp_path)[0].read_bytes()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"contract": 5}'])
def test_strays_and_cut_versions_are_named_and_the_rest_is_listed(
    registry: Registry, tmp_path: Path, base: Path, text: str
) -> None:
    versions = tmp_path / MODELS / "versions"
    (versions / "stray").mkdir()
    (versions / "notes.txt").write_text("not a version")
    (versions / "no name").mkdir()
    registry.add("cut", tmp_path / "other", CONTRACT)
    (versions / "cut" / "lineage.json").write_text(text)
    assert adopt(registry, None) == checkpoint_version(base)
    assert {model.version for model in registry.versions()} == {checkpoint_version(base), "other"}
    assert set(registry.damaged) == {"stray", "notes.txt", "no name", "cut"}
    assert "lineage.json" in registry.damaged["cut"]
    with pytest.raises(ValueError, match=r"cut/lineage\.json"):
        registry.get("cut")


def test_a_cut_version_in_production_stops_the_start_until_its_checkpoint_is_given(
    registry: Registry, tmp_path: Path, base: Path
) -> None:
    version = checkpoint_version(base)
    (tmp_path / MODELS / "versions" / version / "lineage.json").write_text("{")
    with pytest.raises(ValueError, match=rf"version {version}.*lineage\.json.*pirl serve CHECKPOINT"):
        adopt(registry, None)
    assert adopt(registry, base) == version
    assert registry.get(version).contract == CONTRACT
    assert (tmp_path / "quarantine" / MODELS / version).is_dir()


def test_changed_weights_in_production_are_replaced_by_the_checkpoint(
    registry: Registry, tmp_path: Path, base: Path
) -> None:
    version = checkpoint_version(base)
    weights = next((tmp_path / MODELS / "versions" / version).glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    assert checkpoint_version(registry.path(version)) != version
    assert adopt(registry, base) == version
    assert checkpoint_version(registry.path(version)) == version
    assert version in (tmp_path / "quarantine" / MODELS / f"{version}.reason.txt").read_text()
    assert registry.aliases()[PRODUCTION] == version


def test_a_restart_with_a_base_that_is_damaged_does_not_undo_a_promotion(
    registry: Registry, tmp_path: Path, base: Path
) -> None:
    registry.point(PRODUCTION, "other", "test", "")
    (tmp_path / MODELS / "versions" / checkpoint_version(base) / "lineage.json").write_text("{")
    assert adopt(registry, base) == "other"
    assert registry.aliases()[PRODUCTION] == "other"


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("refusing", "name"), [(atomic_files, "sync"), (AuditLog, "write")], ids=["file", "audit"])
@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_on_a_full_disk_the_alias_and_what_serves_stay_equal(
    registry: Registry, tmp_path: Path, refusing: object, name: str, change: str
) -> None:
    serving = [registry.aliases()[PRODUCTION]]
    promoter = Promoter(registry, serving.append)
    content = [path.read_bytes() for path in files(tmp_path)]

    def act() -> None:
        if change == "promote":
            promoter.promote("other", "test", "better", force=True)
        else:
            promoter.rollback("test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refusing, name, no_room)
        with pytest.raises(OSError, match="No space"):
            act()
    assert [path.read_bytes() for path in files(tmp_path)] == content
    assert serving[-1] == registry.aliases()[PRODUCTION] != "other"
    assert [path for path in (tmp_path / MODELS).iterdir() if path.name.startswith(".aliases")] == []
    act()
    assert serving[-1] == registry.aliases()[PRODUCTION] == "other", "negative control"


def test_a_damaged_evaluation_is_no_evaluation_that_the_gate_passes_over(registry: Registry, tmp_path: Path) -> None:
    incumbent = registry.aliases()[PRODUCTION]
    for version, successes in ((incumbent, 60), ("other", 70)):
        outcomes = tuple(at < successes for at in range(100))
        registry.evaluations.put(Evaluation(version, "toy", "a" * 16, 100, successes, "2026", outcomes=outcomes))
    assert check_gate(registry, incumbent, "other").allowed
    path = tmp_path / MODELS / "evaluations" / f"{incumbent}-{'b' * 16}.json"
    path.write_text(json.dumps({"version": incumbent}))
    with pytest.raises(ValueError, match=path.name):
        check_gate(registry, incumbent, "other")
