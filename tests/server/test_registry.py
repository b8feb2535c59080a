"""Versions never change, aliases move whole, the gate refuses for a stated reason."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pirl_contract import Contract
from pirl_server.registry import audit as audit_log
from pirl_server.registry.evaluation import Evaluation, list_hash
from pirl_server.registry.offline_evidence import ActionError, GainBound, OfflineEvidence
from pirl_server.registry.promotion import Promoter, PromotionRefusedError
from pirl_server.registry.promotion_gate import check_gate
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.registry.wilson import Z_95, wilson_interval

LIST = list_hash("push", range(100))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    oracle = binomtest(*counts).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@given(st.integers(2, 500).flatmap(lambda n: st.tuples(st.integers(1, n - 1), st.just(n))))
def test_wilson_solves_its_defining_equation(counts: tuple[int, int]) -> None:
    successes, trials = counts
    for bound in wilson_interval(successes, trials):
        distance = abs(successes / trials - bound)
        assert distance == pytest.approx(Z_95 * math.sqrt(bound * (1 - bound) / trials), abs=1e-9)


def test_wilson_refuses_what_is_no_rate() -> None:
    for counts in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError, match="is not a rate"):
            wilson_interval(*counts)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    source = tmp_path / "checkpoint"
    source.mkdir()
    (source / "policy.safetensors").write_bytes(b"weights")
    (source / "card.json").write_text('{"task": "push", "instructions": ["push it", "shove it"]}')
    return source


@pytest.fixture
def registry(tmp_path: Path, checkpoint: Path, contract: Contract) -> Registry:
    made = Registry(tmp_path / "models")
    made.add("v1", checkpoint, contract)
    made.add("v2", checkpoint, contract, parent="v1", job="job_x")
    return made


def evaluate(
    registry: Registry,
    version: str,
    successes: int,
    episodes: int = 100,
    hash_: str = LIST,
    task: str = "push",
    instructions: tuple[str, ...] = (),
    **more: Any,
) -> None:
    outcomes = tuple(at < successes for at in range(episodes))
    known = {"instructions": instructions, "outcomes": outcomes} | more
    registry.evaluations.put(Evaluation(version, task, hash_, episodes, successes, "2026-01-01", **known))


def audit(tmp_path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (tmp_path / "models" / "audit.jsonl").read_text().splitlines()]


def test_a_version_is_a_copy_that_later_writes_cannot_change(
    registry: Registry, checkpoint: Path, contract: Contract
) -> None:
    (checkpoint / "policy.safetensors").write_bytes(b"other weights")
    assert registry.add("v1", checkpoint, contract, parent="v9").parent is None
    model = registry.get("v2")
    assert (model.path / "policy.safetensors").read_bytes() == b"weights"
    assert (model.parent, model.job, model.contract) == ("v1", "job_x", contract)
    assert {found.version for found in registry.versions()} == {"v1", "v2"}


def test_sources_and_names_that_could_leave_the_registry_are_refused(
    registry: Registry, checkpoint: Path, contract: Contract
) -> None:
    (checkpoint / "link").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="plain files"):
        registry.add("v3", checkpoint, contract)
    with pytest.raises(ValueError, match=r"version '\.\./v3'"):
        registry.add("../v3", checkpoint, contract)
    with pytest.raises(ValueError, match="version"):
        registry.get("../../etc")
    assert {found.version for found in registry.versions()} == {"v1", "v2"}


RACER = """
import json, sys
from pathlib import Path
from pirl_contract import Contract
from pirl_server.registry.versions import Registry
root, checkpoint, contract, start = Path(sys.argv[1]), Path(sys.argv[2]), Contract.from_json(sys.argv[3]), sys.argv[4]
registry = Registry(root)
for number in range(20):
    registry.add(f"p{start}{number}", checkpoint, contract)
    registry.point("candidate", f"p{start}{number}", "test", "race")
"""


def test_processes_that_move_an_alias_lose_no_history(
    tmp_path: Path, registry: Registry, checkpoint: Path, contract: Contract
) -> None:
    arguments = [str(tmp_path / "models"), str(checkpoint), contract.to_json()]
    racers = [subprocess.Popen([sys.executable, "-c", RACER, *arguments, start]) for start in "ab"]
    assert [racer.wait() for racer in racers] == [0, 0]
    entry = json.loads((tmp_path / "models" / "aliases.json").read_text())["candidate"]
    moved = [*entry["previous"], entry["version"]]
    assert sorted(moved) == sorted(f"p{start}{number}" for start in "ab" for number in range(20))
    assert len(registry.versions()) == 42


def test_alias_names_and_versions_resolve(registry: Registry) -> None:
    registry.point("production", "v1", "me", "first")
    assert registry.resolve("production").version == "v1"
    assert registry.resolve("v2").version == "v2"
    with pytest.raises(KeyError):
        registry.resolve("candidate")
    with pytest.raises(KeyError):
        registry.point("production", "v9", "me", "no such version")


def test_the_gate_lets_the_first_and_the_equal_version_through(registry: Registry) -> None:
    assert check_gate(registry, None, "v1").allowed
    evaluate(registry, "v1", 60)
    evaluate(registry, "v2", 60)
    result = check_gate(registry, "v1", "v2")
    assert result.allowed
    assert result.comparisons[0].candidate.interval == pytest.approx(wilson_interval(60, 100))


def test_the_gate_refuses_what_was_not_compared(registry: Registry) -> None:
    assert "no evaluation on the same fixed list" in check_gate(registry, "v1", "v2").refusals[0]
    evaluate(registry, "v1", 10)
    evaluate(registry, "v2", 99, hash_=list_hash("push", range(1, 101)))
    assert not check_gate(registry, "v1", "v2").allowed  # other initial states
    evaluate(registry, "v2", 49, episodes=49)
    evaluate(registry, "v1", 1, episodes=49)
    assert not check_gate(registry, "v1", "v2").allowed  # too few
    evaluate(registry, "v1", 1, episodes=50)
    evaluate(registry, "v2", 50, episodes=50)
    assert check_gate(registry, "v1", "v2").allowed


def test_the_gate_refuses_a_step_back_on_any_task(registry: Registry) -> None:
    for task, hash_, old, new in (("push", LIST, 60, 90), ("shove", "b" * 16, 60, 49)):
        evaluate(registry, "v1", old, hash_=hash_, task=task, instructions=("shove it",))
        evaluate(registry, "v2", new, hash_=hash_, task=task, instructions=("shove it",))
    result = check_gate(registry, "v1", "v2")
    assert len(result.refusals) == 1
    assert "v2 succeeded 49 of 100 times and v1 60" in result.refusals[0]
    assert [(each.pool.task, each.passed) for each in result.judged] == [("push", True), ("shove", False)]


def test_a_list_of_a_task_that_production_was_not_trained_for_proves_nothing(registry: Registry) -> None:
    """Where both fail, random weights are as good as production."""
    for version in ("v1", "v2"):
        evaluate(registry, version, 1, task="pick", instructions=("pick it",))
        evaluate(registry, version, 1, task="both", hash_="b" * 16, instructions=("pick it", "push it"))
        evaluate(registry, version, 1, task="unsaid", hash_="c" * 16)
    assert "a task that v1 was trained for (push)" in check_gate(registry, "v1", "v2").refusals[0]
    for version in ("v1", "v2"):  # negative control, and a suite's task whose sentences it was all trained on
        evaluate(registry, version, 1, task="shove", hash_="d" * 16, instructions=("shove it",))
    assert check_gate(registry, "v1", "v2").allowed
    evaluate(registry, "v2", 0, task="pick", instructions=("pick it",))
    assert check_gate(registry, "v1", "v2").allowed, "nor does it speak against one"


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "push", "instructions": 5}', None])
def test_a_card_that_cannot_be_read_is_named_and_takes_force(registry: Registry, text: str | None) -> None:
    card = registry.get("v1").path / "card.json"
    card.unlink() if text is None else card.write_text(text)
    for version in ("v1", "v2"):
        evaluate(registry, version, 60)
    (refused,) = check_gate(registry, "v1", "v2").refusals
    assert str(card) in refused
    registry.point("production", "v1", "test", "start")
    Promoter(registry, lambda version: None).promote("v2", "ada", "arm is parked", force=True)
    assert registry.aliases()["production"] == "v2"


def test_the_gate_refuses_another_contract(registry: Registry, checkpoint: Path, contract: Contract) -> None:
    registry.add("v3", checkpoint, replace(contract, rate_hz=10.0))
    evaluate(registry, "v1", 10)
    evaluate(registry, "v3", 90)
    assert check_gate(registry, "v1", "v3").refusals == ("contract differs, rate_hz: 20.0 here, 10.0 there",)


AGAINST = OfflineEvidence(
    "v2", "v1", "2026-01-01", "job_x", 3, ActionError((1.0, 1.0, 2.0), (2.5, 2.5, 5.0), "unit", max_ratio=2.0)
)  # fmt: skip


def test_held_out_episodes_can_reject_what_is_as_good_in_the_simulator(registry: Registry, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        evaluate(registry, version, 60)
    assert check_gate(registry, "v1", "v2").allowed
    registry.measured(replace(AGAINST, action_error=replace(AGAINST.action_error, max_ratio=2.51)))
    assert check_gate(registry, "v1", "v2").allowed, "not above the limit"
    registry.measured(AGAINST)
    (refused,) = check_gate(registry, "v1", "v2").refusals
    assert refused == (
        "v2: held-out action error 3.33 against 1.33 of the base (unit): 2.50 times, the limit is 2; larger in 3 of 3"
        " episodes"
    )
    lines = [line for line in audit(tmp_path) if line["event"] == "measured offline"]
    assert [(line["version"], line["actor"], line["result"]) for line in lines] == [
        ("v2", "job_x", "done"),
        ("v2", "job_x", "refused"),
    ]
    trial = TrialLimit(registry, 0.1)
    assert trial.canary("v2", 1, 0.0).refusals == (refused,), "not on one robot either"
    assert trial.canary("v1", 1, 0.0).allowed
    registry.point("production", "v1", "test", "start")
    Promoter(registry, lambda version: None).promote("v2", "ada", "arm is parked", force=True)


def test_an_offline_bound_rejects_below_its_limit_and_damage_rejects_too(registry: Registry, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        evaluate(registry, version, 60)
    bound = GainBound(mean=0.02, lower=-0.2, episodes=9, max_loss=0.2)
    kept = replace(AGAINST, action_error=None, gain=bound)
    registry.measured(kept)
    assert registry.offline.of("v2") == kept
    assert check_gate(registry, "v1", "v2").allowed
    registry.measured(replace(kept, gain=replace(bound, lower=-0.21)))
    assert "at least -0.210 with 95 % by 9 held-out episodes" in check_gate(registry, "v1", "v2").refusals[0]
    file = tmp_path / "models" / "offline" / "v2.json"
    file.write_text("{}")
    assert str(file) in check_gate(registry, "v1", "v2").refusals[0]


def test_promotion_activates_first_and_is_audited(registry: Registry, tmp_path: Path) -> None:
    active: list[str] = []
    promoter = Promoter(registry, active.append)
    promoter.promote("v1", "ada")
    with pytest.raises(PromotionRefusedError, match="no evaluation"):
        promoter.promote("v2", "ada")
    assert (active, registry.aliases()) == (["v1"], {"production": "v1"})
    with pytest.raises(ValueError, match="needs a reason"):
        promoter.promote("v2", "ada", force=True)
    assert not promoter.promote("v2", "ada", "arm is parked", force=True).allowed
    with pytest.raises(ValueError, match="already in production"):
        promoter.promote("v2", "ada")
    assert promoter.rollback("bob", "it shakes") == "v1"
    assert active == ["v1", "v2", "v1"]
    with pytest.raises(ValueError, match="no earlier production"):
        promoter.rollback("bob")
    told = [(line["event"], line["version"], line["actor"]) for line in audit(tmp_path)][2:]
    assert told == [
        ("promoted", "v1", "ada"),
        ("refused", "v2", "ada"),
        ("forced", "v2", "ada"),
        ("rolled back", "v1", "bob"),
    ]


WRITER = """
import sys
from pathlib import Path
from pirl_server.registry import audit
audit.MAX_BYTES = 4096
log = audit.AuditLog(Path(sys.argv[1]))
for number in range(60):
    log.write("call refused", sys.argv[2], number=str(number))
"""


def test_a_full_audit_log_is_rotated_and_still_defines_the_aliases(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "MAX_BYTES", 4096)
    registry.point("production", "v1", "ada", "first")
    registry.point("production", "v2", "ada", "second")
    folder = tmp_path / "models"
    for number in range(200):
        registry.audit_log.write("call refused", "unknown", number=str(number))
    files = sorted(path.name for path in folder.glob("audit*.jsonl"))
    assert files == ["audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl", "audit.4.jsonl", "audit.jsonl"]
    assert max(path.stat().st_size for path in folder.glob("audit*.jsonl")) < 2 * 4096
    newest_last = ["audit.4.jsonl", "audit.3.jsonl", "audit.2.jsonl", "audit.1.jsonl", "audit.jsonl"]
    lines = [json.loads(line) for name in newest_last for line in (folder / name).read_text().splitlines()]
    numbers = [int(line["number"]) for line in lines if "number" in line]
    assert numbers == list(range(numbers[0], 200)), "none is lost but with the oldest file"
    for name in ("aliases.json", "aliases.copy.json"):
        (folder / name).write_text("{")
    fresh = Registry(folder)
    assert (fresh.aliases(), fresh.previous("production")) == ({"production": "v2"}, "v1")


def test_processes_that_rotate_the_audit_log_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = [json.loads(line) for file in tmp_path.glob("audit*.jsonl") for line in file.read_text().splitlines()]
    assert len(list(tmp_path.glob("audit*.jsonl"))) > 2
    for name in "ab":
        numbers = sorted(int(line["number"]) for line in lines if line["actor"] == name)
        assert numbers == list(range(60))


def test_a_version_that_does_not_load_is_not_promoted(registry: Registry) -> None:
    def fail(version: str) -> None:
        raise RuntimeError(f"{version} does not load")

    with pytest.raises(RuntimeError, match="does not load"):
        Promoter(registry, fail).promote("v1", "ada")
    assert registry.aliases() == {}
