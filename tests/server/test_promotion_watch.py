"""When a promoted version is taken back: the verdict as a pure function, how chunks compare, and what is counted."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import until
from whole_server import Server

from pirl_contract import Alteration, Contract, ControlSource, StepOutcome
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.sequential_test import chance_of_so_many, crossing, limits
from pirl_server.registry.versions import Registry
from pirl_server.serving.alteration_counts import AlterationCounts, Altered
from pirl_server.watch import monitor
from pirl_server.watch.chunk_agreement import ChunkAgreement
from pirl_server.watch.signs import Agreement, Live, Outcomes, Signs
from pirl_server.watch.state import WatchState, read_state, write_state, write_unwatched
from pirl_server.watch.verdict import ALPHA, FIRST, FIRST_ALPHA, LOOKS, MIN_COMPARED, verdict

WELL = Live(requests=200, slow_ms=20.0, steps=1000, altered=50)
SAME = Agreement(compared=40, correlation=0.9, least_correlation=0.6, spread=1.1, largest_shift=0.5, moves=True)
FINE = Signs(WELL, WELL, 20.0, SAME, SAME, Outcomes(90, 100, (True,) * 9 + (False,)))

WORSE = {
    "not finite": replace(FINE, new=replace(WELL, not_finite=1)),
    "requests failed": replace(FINE, new=replace(WELL, errors=25)),
    "episodes failed": replace(FINE, outcomes=Outcomes(97, 100, (False,) * 3)),
    "altered": replace(FINE, new=replace(WELL, altered=400)),
    "one in five of its chunks take 90 ms": replace(FINE, new=replace(WELL, slow_ms=90.0)),
    "half of its chunks take 60 ms": replace(FINE, new=replace(WELL, typical_ms=60.0), old_typical_ms_now=12.0),
    "hardly move": replace(FINE, agreement=replace(SAME, spread=0.05, correlation=0.0)),
    "times as far": replace(FINE, agreement=replace(SAME, spread=4.0)),
    "unrelated": replace(FINE, agreement=replace(SAME, correlation=0.05)),
    "opposite": replace(FINE, agreement=replace(SAME, least_correlation=-0.8)),
    "lead nowhere": replace(FINE, ways=replace(SAME, spread=0.1, correlation=0.5)),
    "lead away": replace(FINE, ways=replace(SAME, correlation=-0.5)),
    "shifted": replace(FINE, agreement=replace(SAME, largest_shift=8.0)),
}


@pytest.mark.parametrize("part", WORSE)
def test_each_sign_alone_takes_a_version_back_and_says_why(part: str) -> None:
    assert part in verdict(WORSE[part])
    assert not verdict(FINE), "negative control"
    assert not verdict(Signs()), "of nothing nothing follows"


@pytest.mark.parametrize(
    "signs",
    [
        replace(FINE, new=replace(WELL, not_finite=1), old=replace(WELL, not_finite=1)),
        replace(FINE, new=replace(WELL, errors=25), old=replace(WELL, errors=25)),
        replace(FINE, new=replace(WELL, errors=2, requests=2)),
        replace(FINE, new=replace(WELL, altered=400), old=replace(WELL, altered=400)),
        replace(FINE, new=replace(WELL, altered=39, steps=39)),
        replace(FINE, new=replace(WELL, slow_ms=90.0), old_slow_ms_now=80.0),
        replace(FINE, new=replace(WELL, slow_ms=90.0), old_slow_ms_now=None),
        replace(FINE, agreement=replace(SAME, correlation=-1.0, compared=MIN_COMPARED - 1)),
        replace(FINE, agreement=replace(SAME, correlation=-1.0, moves=False)),
        replace(FINE, agreement=replace(SAME, correlation=-1.0), old=replace(WELL, altered=600)),
        replace(FINE, outcomes=Outcomes(50, 100, (False,) * 5)),
        replace(FINE, outcomes=Outcomes(0, 0, (False,) * 30)),
    ],
)
def test_what_the_version_before_does_too_or_what_is_seen_too_rarely_takes_nothing_back(signs: Signs) -> None:
    assert not verdict(signs)


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 0.97])
def test_a_hundred_swaps_of_equal_versions_are_left_alone(rate: float) -> None:
    """Outcomes, altered steps in bursts, and times of a machine that has other work; chunks of another training."""
    rng = np.random.default_rng(7)
    for _ in range(100):
        known = int(rng.binomial(100, rate))
        tried = rng.random(LOOKS) < rate
        bursts = rng.random((2, 60)) < 0.1  # ten steps in a row each
        slow = 20.0 * np.exp(rng.normal(0.0, 0.2, 3))
        for episodes in range(1, LOOKS + 1):
            steps = min(600, 20 * episodes)
            new = Live(20 * episodes, 0, 0, float(slow[0]), steps, int(10 * bursts[0, : steps // 10].sum()))
            old = Live(500, 0, 0, float(slow[1]), 600, int(10 * bursts[1].sum()))
            outcomes = Outcomes(known, 100, tuple(map(bool, tried[:episodes])))
            assert not verdict(Signs(new, old, float(slow[2]), SAME, SAME, outcomes))


@pytest.mark.parametrize("rate", [0.8, 0.95])
def test_the_exact_chance_that_outcomes_take_an_equal_version_back(rate: float) -> None:
    """Over what 50 episodes of the version before may have been, and all sequences of the new one's."""
    total = 0.0
    for known in range(51):
        weight = comb(50, known) * rate**known * (1 - rate) ** (50 - known)
        if weight > 1e-5:
            failures_at = list(limits(known, 50, LOOKS, ALPHA))
            if chance_of_so_many(FIRST, FIRST, 50 - known, 50) <= FIRST_ALPHA:
                failures_at[FIRST - 1] = min(FIRST, failures_at[FIRST - 1])
            total += weight * crossing(tuple(failures_at), lambda seen, failed: 1 - rate)
    assert 0.0 < total <= 0.0003


@settings(max_examples=60)
@given(st.lists(st.booleans(), max_size=LOOKS), st.integers(0, 100))
def test_a_further_failure_never_speaks_for_a_version(tried: list[bool], known: int) -> None:
    before = verdict(Signs(outcomes=Outcomes(known, 100, tuple(tried))))
    after = verdict(Signs(outcomes=Outcomes(known, 100, (*tried, False))))
    assert not before or after
    assert not verdict(Signs(outcomes=Outcomes(known, 100, (True,) * len(tried))))


def agreement(change: Any, requests: int = 20, usual: float | None = None) -> Agreement:
    rng = np.random.default_rng(3)
    found = ChunkAgreement(2, None if usual is None else np.full(2, usual))
    for _ in range(requests):
        old = rng.normal(size=(5, 2)).astype(np.float32)
        found.add(change(old, rng).astype(np.float32), old)
    return found.result()


def test_chunks_of_the_same_version_agree() -> None:
    same = agreement(lambda old, rng: old)
    assert (same.compared, same.moves) == (20, True)
    assert [same.correlation, same.least_correlation, same.spread] == pytest.approx([1, 1, 1])
    assert same.largest_shift == pytest.approx(0, abs=1e-6)
    assert agreement(lambda old, rng: old, requests=0) == Agreement()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda old, rng: 0 * old, "hardly move"),
        (lambda old, rng: 5 * old, "times as far"),
        (lambda old, rng: rng.normal(size=old.shape), "unrelated"),
        (lambda old, rng: -old, "unrelated"),
        (lambda old, rng: old * np.array([1, -1]), "unrelated"),
        (lambda old, rng: np.stack([old[:, 0], 0.9 * rng.normal(size=5) - 0.8 * old[:, 1]], axis=1), "opposite"),
        (lambda old, rng: old + 7.0, "shifted"),
    ],
)
def test_chunks_of_a_broken_version_are_told_apart(change: Any, part: str) -> None:
    assert part in verdict(Signs(agreement=agreement(change)))


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
def test_chunks_of_another_good_version_are_left_alone(noise: float) -> None:
    found = agreement(lambda old, rng: 0.9 * old + noise * rng.normal(size=old.shape) + 0.2)
    assert not verdict(Signs(agreement=found))


@pytest.mark.parametrize(("share", "part"), [(0.0, "nowhere"), (0.05, "nowhere"), (-1.0, "away"), (1.0, "")])
def test_chunks_that_lead_elsewhere_are_seen_wherever_the_arm_is(share: float, part: str) -> None:
    """Joint targets: where the arm is decides most of them, whatever the policy does."""
    rng, found = np.random.default_rng(5), ChunkAgreement(3)
    for _ in range(20):
        where, way = rng.normal(size=3), np.cumsum(np.full((8, 3), 0.1) * rng.choice([-1, 1], 3), axis=0)
        found.add((where + share * way).astype(np.float32), (where + way).astype(np.float32))
    assert found.result().correlation > 0.1
    said = verdict(Signs(agreement=found.result(), ways=found.ways()))
    assert part in said if part else not said


def test_an_arm_that_rests_says_nothing_and_values_that_are_not_finite_are_left_out() -> None:
    assert not agreement(lambda old, rng: -old, usual=100.0).moves
    assert agreement(lambda old, rng: -old, usual=2.0).moves, "negative control"
    assert agreement(lambda old, rng: old * np.nan).compared == 0


def test_steps_are_counted_by_the_version_that_drew_their_chunk() -> None:
    counts = AlterationCounts()
    counts.drew("c1", "v1")
    counts.drew("c2", "v2")
    zero = np.zeros(1, np.float32)

    def step(chunk: str, alterations: Alteration = Alteration.NONE, **more: Any) -> StepOutcome:
        return StepOutcome(chunk, 0, zero, zero, alterations=alterations, **more)

    counts.executed([step("c1"), step("c1", Alteration.LIMIT), step("c2", Alteration.BLENDED), step("unknown")])
    counts.executed([step("c1", Alteration.LIMIT, source=ControlSource.HUMAN)])
    assert (counts.of("v1"), counts.of("v2"), counts.of("v3")) == (Altered(2, 1), Altered(1, 0), Altered())


def test_a_state_is_read_as_it_was_written_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) == WatchState()
    state = WatchState("rolled back", "v2", "v1", "2026", 90, 100, "worse", "2026")
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    for text in ("{", "[]", '{"phase": "dancing"}'):
        (tmp_path / "watch.json").write_text(text)
        assert read_state(tmp_path) == WatchState()


def test_a_clock_that_is_set_ahead_does_not_end_a_watch(
    tmp_path: Path, make_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, looks = Server(tmp_path, make_policy(), watched=True), list[Signs]()
    monkeypatch.setattr(monitor, "_hours", lambda since: 1000.0)

    def look(signs: Signs) -> str:
        looks.append(signs)
        return ""

    monkeypatch.setattr(monitor, "verdict", look)
    with server.web(server.tokens.create("root", ["admin"])) as web:
        body = {"version": "v2", "force": True, "reason": "test"}
        web.post("/v1/models/promote", json=body).raise_for_status()
        until(lambda: len(looks) >= 3, "looks")
        assert web.get("/v1/models/watch").json()["phase"] == "watching"
    server.close()


def test_promotions_are_announced_and_rollbacks_are_not(tmp_path: Path, contract: Contract) -> None:
    registry, source = Registry(tmp_path / "models"), tmp_path / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    for version in ("v1", "v2", "v3"):
        registry.add(version, source, contract)
    seen = list[tuple[str | None, str]]()
    promoter = Promoter(registry, lambda version: None)
    promoter.on_promoted = lambda previous, version: seen.append((previous, version))
    for version in ("v1", "v2", "v3"):
        promoter.promote(version, "ada", "test", force=True)
    assert seen == [(None, "v1"), ("v1", "v2"), ("v2", "v3")]
    assert promoter.rollback("auto-rollback", "worse", expected=registry.state("production")) == "v2"
    assert len(seen) == 3, "a rollback is not watched"


class Quiet:
    """A live view of a server without requests."""

    def follow(self, version: str, previous: str) -> None:
        self.followed = version, previous

    def live(self) -> tuple[Live, Live, tuple[float, float]]:
        return WELL, WELL, (20.0, 20.0)

    def agreement(self) -> tuple[Agreement, Agreement]:
        return SAME, SAME

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


def promoted_twice(folder: Path, contract: Contract) -> tuple[Registry, Promoter]:
    """v1 and then v2, by a server that watches nothing."""
    registry, source = Registry(folder / "models"), folder / "checkpoint"
    source.mkdir()
    (source / "card.json").write_text('{"task": "push"}')
    for version in ("v1", "v2"):
        registry.add(version, source, contract)
    promoter = Promoter(registry, lambda version: None)
    for version in ("v1", "v2"):
        promoter.promote(version, "ada", "test", force=True)
    return registry, promoter


def watch_of(registry: Registry, promoter: Promoter, tried: tuple[bool, ...] = ()) -> monitor.PromotionMonitor:
    def outcomes(state: WatchState) -> Outcomes:
        return Outcomes(97, 100, tried)

    view: Any = Quiet()
    return monitor.PromotionMonitor(registry, promoter, view, outcomes, lambda version: (97, 100), registry.root)


def test_a_promotion_whose_server_was_killed_before_its_watch_is_watched_by_the_next(
    tmp_path: Path, contract: Contract
) -> None:
    """And taken back where it is worse, as any other."""
    registry, promoter = promoted_twice(tmp_path, contract)
    here = watch_of(registry, promoter)
    found = here.report().state
    assert (found.phase, found.version, found.previous) == ("watching", "v2", "v1")
    assert found.since == registry.audit_log.newest(1, ["forced"])[0]["time"], "episodes since then count"
    assert read_state(registry.root).version == "v2", "a further restart continues it"
    here.close()
    again = watch_of(registry, promoter, tried=(False,) * 8)
    until(lambda: again.report().state.phase == "rolled back", lambda: again.report())
    assert registry.aliases()["production"] == "v1"
    again.close()


@pytest.mark.parametrize("meanwhile", ["kept", "rolled back by hand", "long ago", "off", "another alias"])
def test_what_was_watched_or_is_not_to_be_is_left_alone_by_the_next_server(
    tmp_path: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    registry, promoter = promoted_twice(tmp_path, contract)
    if meanwhile == "kept":
        write_state(registry.root, WatchState("kept", "v2", "v1", "2026", ended="2026"))
    elif meanwhile == "rolled back by hand":
        promoter.rollback("ada", "as a test")
    elif meanwhile == "long ago":
        monkeypatch.setattr(monitor, "_hours", lambda since: 25.0)
    elif meanwhile == "off":
        write_unwatched(registry.root, "v1", "v2")
    else:
        promoter.rollback("ada", "as a test")
        registry.point("candidate", "v1", "a job", "learnt")
    before = registry.aliases()
    here = watch_of(registry, promoter, tried=(False,) * 8)
    assert here.report().state.phase != "watching"
    here.close()
    assert registry.aliases() == before


def test_a_version_that_is_promoted_again_after_it_was_taken_back_is_watched_again(
    tmp_path: Path, contract: Contract
) -> None:
    registry, promoter = promoted_twice(tmp_path, contract)
    promoter.rollback("auto-rollback", "worse")
    write_state(registry.root, WatchState("rolled back", "v2", "v1", "2026", reason="worse", ended="2026"))
    promoter.promote("v2", "ada", "mended", force=True)
    here = watch_of(registry, promoter)
    assert here.report().state.phase == "watching"
    here.close()
