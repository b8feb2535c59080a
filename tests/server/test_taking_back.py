"""A version that is rolled back or recalled is gone from all robots at once, in comparisons and on a full disk too."""

from __future__ import annotations

import errno

import pytest
from deployed_world import World, promote

from pirl_server.registry.ab_trials import AbTrial


def trial(first: str, second: str, reason: str = "") -> AbTrial:
    return AbTrial("ab_" + "0" * 16, first, second, ("arm-1",), "seed", 50, 0.15, 0.05, "2026", "ada", reason, "v1")


def test_a_rollback_reaches_episodes_of_a_canary_and_of_a_comparison(world: World) -> None:
    world.deployment.canary("v2", ["arm-2"], 0.0, "test")
    world.begin("canary", "arm-2")
    promote(world, "v2")
    world.deployment.pin("arm-3", "v2", "test")
    world.deployment.try_out(trial("v2", "v1"))
    world.begin("pinned", "arm-3")
    for episode in ("one", "other"):
        world.begin(episode, "arm-1")
    assert {world.answered_by("arm-1", each) for each in ("one", "other")} == {"v1", "v2"}
    world.promoter.rollback("test")
    for robot, episode in (("arm-2", "canary"), ("arm-1", "one"), ("arm-1", "other")):
        assert world.answered_by(robot, episode) == "v1", episode
    assert world.answered_by("arm-3", "pinned") == "v2", "a pin holds, whatever is promoted"
    assert world.deployment.trial is None
    for number in range(4):
        world.begin(f"next-{number}", "arm-1")
        assert world.answered_by("arm-1", f"next-{number}") == "v1", "it is given to no further episode"


def test_a_rollback_that_is_tried_again_swaps_once_however_long_the_disk_is_full(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(world, "v2")

    def reject(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(world.registry, "audit", reject)
        swaps = world.engine.stats().swaps
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                world.promoter.rollback("auto-rollback", "worse", insist=True)
            assert world.answered_by() == "v1"
        assert world.engine.stats().swaps == swaps + 1
        with pytest.raises(OSError, match="No space"):
            world.promoter.rollback("ada", "worse")
        assert world.answered_by() == "v2", "a person gets an error, and finds what was before"
    assert world.promoter.rollback("auto-rollback", "worse", insist=True) == "v1"
    assert (world.answered_by(), world.registry.aliases()["production"]) == ("v1", "v1")


@pytest.mark.parametrize("by_loop", [False, True])
def test_a_recall_needs_no_room_on_the_disk(world: World, monkeypatch: pytest.MonkeyPatch, by_loop: bool) -> None:
    world.deployment.canary("v2", ["arm-1"], 0.0, "test")
    world.begin("e1", "arm-1")

    def reject(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(world.registry, "audit", reject)
        with pytest.raises(OSError, match="No space"):
            world.deployment.withdraw("v2", "loop") if by_loop else world.deployment.recall("ada")
    assert [world.answered_by("arm-1", "e1"), world.answered_by("arm-1")] == ["v1", "v1"]
    world.deployment.pin("arm-3", "v3", "test", "because", force=True)
    assert world.answered_by("arm-1") == "v1", "another decision does not bring it back"
    world.deployment.canary("v2", ["arm-1"], 0.0, "test")
    assert world.answered_by("arm-1") == "v2", "that is a new decision"
    world.deployment.recall("ada")
    assert "candidate" not in world.registry.aliases()


def test_a_recalled_candidate_is_compared_no_more(world: World) -> None:
    world.deployment.canary("v2", ["arm-2"], 0.0, "test")
    world.deployment.try_out(trial("v2", "v1"))
    world.deployment.recall("test")
    for number in range(4):
        world.begin(f"e{number}", "arm-1")
        assert world.answered_by("arm-1", f"e{number}") == "v1"


def test_no_episode_begins_with_a_compared_version_before_it_is_loaded(world: World) -> None:
    world.on_load = lambda: world.begin(f"during-{len(world.loads)}", "arm-1")
    world.deployment.try_out(trial("v2", "v3"))
    assert world.loads == ["v1", "v2", "v3"]
    world.on_load = lambda: None
    assert {world.answered_by("arm-1", f"during-{number}") for number in (2, 3)} == {"v1"}
    world.begin("next", "arm-1")
    assert world.answered_by("arm-1", "next") in ("v2", "v3")
